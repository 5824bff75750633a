// Package dialect reads the ways in which others put Evidence into certificates, certificate requests and documents, and
// judges what each of them really binds.
//
// A dialect says where Evidence lies, what the hardware has to have signed for the key in question, and at what level that
// binds. It verifies nothing: an attest.Appraiser does, and compares the bytes that the hardware signed with what the dialect
// expects. Whatever else came along is listed as unsigned.
//
// Invariants:
//   - a dialect is read because the relying party allows it by name; the names of NewReader without any are all that is taken
//     otherwise. A certificate in another one is refused, so that a weaker dialect is no way around a stronger one;
//   - the level is that of the preimage, not of what the dialect calls itself: evidence for a key can be relayed by whoever
//     has that key (CVE-2026-33697), so that key is all it reaches;
//   - the expected report data is a whole: what the dialect leaves open is zero, and a shorter hash is not as good as a longer one;
//   - every recognised dialect is read, and one that can't be read refuses what is shown. Which of two readings counts must
//     not be the choice of who shows them;
//   - an extension that is there twice, or critical and not read, is refused.
package dialect
