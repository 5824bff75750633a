module github.com/jurat-tls/jurat/test/oracle

go 1.26.0

require (
	github.com/google/go-sev-guest v0.15.0
	github.com/jurat-tls/jurat v0.0.0
)

require (
	github.com/google/logger v1.1.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/jurat-tls/jurat => ../..
