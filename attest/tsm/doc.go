// Package tsm collects reports from the platform's trusted security module: through Linux's configfs-tsm, which is one
// interface for SEV-SNP, TDX and CCA guests, or through a Source of the TEE's own. It knows no report format.
//
// Invariants:
//   - what is read is bounded by the caller before it is read;
//   - a report is returned only if the kernel's generation counter shows that nobody else wrote the request;
//   - report data of zeros is refused, and the TEE's own code has to find the data in the report.
package tsm
