// Package sim is a software platform for every TEE: it writes evidence, certificates, revocation lists and what else a
// vendor vouches with in the vendor's formats, under a root made on the spot, so that the verifier for real hardware runs
// unchanged on a laptop. Everything it makes is marked: the Evidence has a format of its own ("sim-" and the TEE's), the
// Claims say vendor "sim", and a Verifier accepts no root but those it was given.
//
// It protects nothing. The keys of the simulated hardware lie in memory and, where a directory is configured, in a file.
//
// To add a TEE, write a file with a function that gives its kind (how a Spec opens a Machine, where Evidence carries the
// root it claims, and how to make the verifier of hardware under that root), and name the function in the table kinds.
// Host, open, pace, vendor and endorser are there to be shared.
package sim
