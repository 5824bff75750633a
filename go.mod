module github.com/jurat-tls/jurat

go 1.26

require (
	github.com/fxamacker/cbor/v2 v2.9.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	pgregory.net/rapid v1.2.0 // indirect
)
