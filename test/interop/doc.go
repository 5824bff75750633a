// Package interop runs control planes of others, as they are built from their modules, and holds ours against them.
//
// It is a module of its own, and the programs are tools of modules below it, so that nothing of what they link comes near the
// proxy. "make interop" builds them once and runs the tests: in a network of their own, where every port is free, nothing
// is reached, and what is started ends with the tests.
package interop
