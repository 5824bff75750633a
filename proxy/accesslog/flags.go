package accesslog

// Flags say what was out of the ordinary. Their short names and meanings are those of Envoy's %RESPONSE_FLAGS%.
type Flags uint32

// The flags, in the order in which they are written.
const (
	NoHealthyUpstream               Flags = 1 << iota // UH: no endpoint of the cluster to go to
	UpstreamRequestTimeout                            // UT: the service did not answer in time
	UpstreamConnectionFailure                         // UF: no connection to the service, or none that was acceptable
	UpstreamConnectionTermination                     // UC: the service closed the connection before its answer was whole
	UpstreamOverflow                                  // UO: a circuit breaker was open
	NoRouteFound                                      // NR: no route, or no filter chain, for it
	DownstreamConnectionTermination                   // DC: the client closed the connection before the answer was whole
	UpstreamRetryLimitExceeded                        // URX: all tries that there may be failed
	StreamIdleTimeout                                 // SI: nothing moved for too long
	DownstreamProtocolError                           // DPE: the client broke the rules of its protocol
	NoClusterFound                                    // NC: the route's cluster does not exist
)

var flagNames = [...]string{
	"UH", "UT", "UF", "UC", "UO", "NR", "DC", "URX", "SI", "DPE", "NC",
}

// String is the short names, with commas between them; "-" for none.
func (f Flags) String() string { return string(f.append(nil, "", "-")) }

// append writes the short names with quote around each, or none.
func (f Flags) append(b []byte, quote, none string) []byte {
	start := len(b)
	for i, name := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, quote...)
		b = append(b, name...)
		b = append(b, quote...)
	}
	if len(b) == start {
		b = append(b, none...)
	}
	return b
}
