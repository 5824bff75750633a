// Package eventlog decodes the log of what a platform measured into its registers: the crypto agile log of the TCG PC
// Client Platform Firmware Profile (chapter 10), which a TPM's firmware keeps as TCG2 and a confidential guest's firmware
// as CCEL.
//
// A log is signed by nobody. It says something only where replaying it leads to registers that the hardware signed, and
// even then only about the digests: what an event's data claims beside its digest stays the word of whoever wrote the
// log.
package eventlog
