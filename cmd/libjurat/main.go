// Command libjurat is a shared library with which programs in other languages appraise evidence as "jurat verify" does. Its
// contract is jurat.h; "make libjurat" builds it. It is the only place that needs a C compiler.
package main

// main is never called: a library has no use for it, and a build mode without one does not exist.
func main() {}
