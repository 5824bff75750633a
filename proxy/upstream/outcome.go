package upstream

// Outcome is what a try says about its endpoint.
type Outcome uint8

// The outcomes. The last three happened on this side: no answer came.
const (
	NoVerdict      Outcome = iota // it says nothing: the client went away
	Success                       // an answer below 500
	ServerError                   // an answer from 500 on, other than the next
	GatewayError                  // 502, 503 or 504
	ConnectFailure                // no connection was established, or none that was acceptable
	Timeout                       // the time was over before the answer
	Reset                         // the stream or the connection broke off
	outcomes
)

// OutcomeOf is the outcome of an answer.
func OutcomeOf(status int) Outcome {
	switch {
	case status < 500:
		return Success
	case status >= 502 && status <= 504:
		return GatewayError
	default:
		return ServerError
	}
}

func (o Outcome) local() bool { return o >= ConnectFailure }
