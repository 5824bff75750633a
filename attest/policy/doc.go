// Package policy holds the appraisal policy: one YAML file that can be read aloud, judged over normalised claims.
//
// Deny wins, the default is refusal, and a policy that says nothing refuses. What loosens it has to be said: "any",
// "unchecked", "none". Every rule yields one check of the transcript, with its line in the file.
package policy
