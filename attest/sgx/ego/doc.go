// Package ego collects SGX evidence, and derives keys to seal data with, inside an enclave that EGo runs. It is built
// with the tag "ego" only, because EGo's library needs a C compiler:
//
//	ego-go build -tags ego ./cmd/jurat
//
// Outside of an enclave, and in EGo's simulation mode, the library hands out a sealing key of zeros without an error:
// whatever was sealed with it would be open to everyone. Open therefore gives an Enclave only after the quoting enclave
// has signed random data and the processor's own key is there, and no key of zeros is ever passed on.
package ego
