// Package pins keeps the keys of peers that were appraised, for programs that can compare keys and know nothing of evidence. A
// Keeper connects to each of its targets again and again, in the certificate tier, and appraises what it shows.
//
// What relies on such a key is bound at level pinned: the evidence was seen here, on another connection.
//
// Invariants:
//   - a key is kept only while the Result that it stands on is affirmed by what is in force at the Keeper's place. A change there
//     that refuses it takes it away at once, and so does the end of its certificate, or of the age to which policies take evidence;
//   - what a target shows that is refused takes away all keys of that target; that it can't be reached, or that nothing can be said
//     about its evidence, takes away none, and adds none;
//   - without a key that is affirmed the list is empty, and whoever uses it has to take that for nobody.
package pins
