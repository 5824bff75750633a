package proxy

import (
	"context"
	"errors"
	"io"

	"github.com/jurat-tls/jurat/attest"
)

var errNotAsked = errors.New("the service switched protocols unasked")

// plainError is err without what it may quote from a message: that can be a value of a header.
func plainError(err error) string {
	var coded *attest.Error
	var network interface{ Timeout() bool }
	switch {
	case errors.As(err, &coded), errors.As(err, &network):
		return err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, errNotAsked), errors.Is(err, errNoAnswer), errors.Is(err, errNotRead), errors.Is(err, errIdle):
		return err.Error()
	default:
		return "not an answer in HTTP"
	}
}
