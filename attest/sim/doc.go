// Package sim is a software SEV-SNP platform: it writes reports, certificates and revocation lists in AMD's formats under
// a root made on the spot, so that the verifier for real hardware runs unchanged on a laptop. Everything it makes is
// marked: the Evidence has a format of its own, the Claims say vendor "sim", and a Verifier accepts no root but those it
// was given.
//
// It protects nothing. The keys of the simulated hardware lie in memory and, where a directory is configured, in a file.
package sim
