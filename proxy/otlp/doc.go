// Package otlp sends spans and metrics to an OpenTelemetry collector, as protobuf over HTTP (OTLP 1.x), and is the one place that
// knows OpenTelemetry's libraries.
//
// It uses their messages, and not their SDK and exporters: these link gRPC even where they speak HTTP, and take where to send
// what from variables of the environment. In a TEE that is for the measured configuration to say.
//
// A collector that is slow, down or hostile costs a bounded amount of memory and the spans that don't fit, which are counted.
// It never makes a caller wait. It sees the metadata that is in spans, so that the connection to it is by TLS, or stays on this
// machine, unless an unsafe option says otherwise.
package otlp
