// Package oracle holds tests that compare this project's verdicts with those of an independent verifier of SEV-SNP
// evidence. It is a module of its own, so that the verifier is no dependency of the project.
package oracle
