package attested

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// Stream is a gRPC stream of messages in both directions. One goroutine may receive while another one sends.
type Stream interface {
	// Context ends with the stream.
	Context() context.Context
	// Peer is the verified other end.
	Peer() *Peer
	// Recv answers the next message, which is the caller's; io.EOF once the other end sends no more, and a *Status for any other
	// end.
	Recv() ([]byte, error)
	// Send sends one message, that is made of the pieces one after the other. It may keep them: nobody may change them any more.
	Send(pieces ...[]byte) error
}

// Code is a gRPC status code.
type Code uint32

// Codes that are given or looked at here; the others keep their numbers.
const (
	Cancelled         Code = Code(codes.Canceled)
	InvalidArgument   Code = Code(codes.InvalidArgument)
	PermissionDenied  Code = Code(codes.PermissionDenied)
	ResourceExhausted Code = Code(codes.ResourceExhausted)
	Unimplemented     Code = Code(codes.Unimplemented)
	Internal          Code = Code(codes.Internal)
	Unavailable       Code = Code(codes.Unavailable)
)

// Status is how a stream ends where it does not end well.
type Status struct {
	Code    Code
	Message string
}

func (s *Status) Error() string { return fmt.Sprintf("%s: %s", codes.Code(s.Code), s.Message) }

// grpcError makes of a handler's error what the peer sees. What has no Status of its own says nothing about this end.
func grpcError(err error) error {
	var s *Status
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &s):
		return status.Error(codes.Code(s.Code), s.Message)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, "internal error")
}

// ended makes a Status of what gRPC answers.
func ended(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	s := status.Convert(err)
	return &Status{Code: Code(s.Code()), Message: s.Message()}
}

// wire are the messages of gRPC's own streams.
type wire interface {
	Context() context.Context
	SendMsg(any) error
	RecvMsg(any) error
}

type stream struct {
	wire
	peer  *Peer
	stall time.Duration // 0 for none
}

func (s *stream) Peer() *Peer { return s.peer }

func (s *stream) Recv() ([]byte, error) {
	var m []byte
	if err := s.RecvMsg(&m); err != nil {
		return nil, ended(err)
	}
	return m, nil
}

func (s *stream) Send(pieces ...[]byte) error {
	if s.stall > 0 {
		// A peer that answers pings and reads nothing would hold the sender for ever.
		stuck := time.AfterFunc(s.stall, s.peer.Cut)
		defer stuck.Stop()
	}
	m := make(mem.BufferSlice, 0, len(pieces))
	for _, p := range pieces {
		if len(p) > 0 {
			m = append(m, mem.SliceBuffer(p))
		}
	}
	return ended(s.SendMsg(m))
}

// codec hands bytes through. Its name is that of protobuf, which the bytes are.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(mem.BufferSlice)
	if !ok {
		return nil, fmt.Errorf("a message is a mem.BufferSlice, not a %T", v)
	}
	return m, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a message is a *[]byte, not a %T", v)
	}
	*m = data.Materialize()
	return nil
}
