package main

import "github.com/jurat-tls/jurat/attest/strictyaml"

//go:generate go -C ../../test/tools run ./genconfig comments ../../cmd/jurat/comments_gen.go ../../cmd/jurat ../../xds/guard ../../proxy/chain ../../proxy/config ../../proxy/route ../../proxy/upstream

// fileSchema is the JSON Schema of a configuration file, for editors. The loader refuses more than it does.
func fileSchema() []byte {
	return strictyaml.Schema[fileConfig]("jurat configuration", func(name string) string { return comments[name] })
}
