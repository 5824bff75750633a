// Package oracle holds tests that compare this project's verdicts with those of independent verifiers, on recorded
// evidence and on much that was made or changed for it. Where two differ, a table of divergences says why and by which
// clause; a difference that is not in the table fails, and so does an entry that is not needed. It is a module of its own,
// so that none of the verifiers is a dependency of the project.
package oracle
