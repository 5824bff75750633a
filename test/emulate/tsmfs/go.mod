module github.com/jurat-tls/jurat/test/emulate/tsmfs

go 1.26.0

require (
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/jurat-tls/jurat v0.0.0-00010101000000-000000000000
)

require github.com/google/go-tpm v0.9.8 // indirect

require (
	github.com/fxamacker/cbor/v2 v2.9.0 // indirect
	github.com/google/go-sev-guest v0.15.0 // indirect
	github.com/google/logger v1.1.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/jurat-tls/jurat => ../../..
