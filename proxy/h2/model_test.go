package h2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// side is one direction of a call: what is to be sent, and what has come.
type side struct {
	fields, trailers message.Fields
	body             []byte
	length           int64
	gotFields        message.Fields
	gotTrailers      message.Fields
	got              []byte
	ended            bool
}

// job is a call as both ends see it.
type job struct {
	path        string
	there, back side
	closed      [2]int
	streams     [2]*h2.Stream
}

func randomSide(r *rand.Rand, window int) side {
	var s side
	for range r.IntN(6) {
		s.fields = append(s.fields, message.Field{
			Name: fmt.Sprintf("x-%d", r.IntN(8)), Value: fmt.Sprint(r.IntN(4)), Secret: r.IntN(8) == 0,
		})
	}
	if r.IntN(3) > 0 {
		s.body = make([]byte, r.IntN(min(6*window, 100_000)))
		for i := range s.body {
			s.body[i] = byte(r.Uint32())
		}
	}
	s.length = message.Unknown
	if r.IntN(2) == 0 {
		s.length = int64(len(s.body))
	}
	if r.IntN(3) == 0 {
		s.trailers = message.Fields{{Name: "grpc-status", Value: fmt.Sprint(r.IntN(3))}}
	}
	return s
}

// write gives as much as is taken of what is left of a body.
func (d *side) write(s *h2.Stream, rest *[]byte) {
	if len(d.trailers) == 0 {
		*rest = (*rest)[s.Write(*rest, true):]
		return
	}
	*rest = (*rest)[s.Write(*rest, false):]
	if len(*rest) == 0 {
		_ = s.Trailers(d.trailers)
	}
}

func (d *side) bodiless() bool { return len(d.body) == 0 && len(d.trailers) == 0 }

// What goes in at one end comes out at the other, whole and in order, whatever the windows, and however the bytes between
// them are cut; and no window is overrun, since each end watches over the other.
func TestModel(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := []int{1, 7, 100, 5000, 70000}[r.IntN(5)]
		limits := h2.Limits{
			StreamWindow: window, ConnWindow: window * (1 + r.IntN(3)), Output: []int{max(1, window/100), 1000, 0}[r.IntN(3)],
			EncoderTable: []int{1, 100, 0}[r.IntN(3)], DecoderTable: []int{1, 100, 10000}[r.IntN(3)],
			Streams: 1 + r.IntN(20), Frames: h2.Rate{Burst: 1 << 20}, Control: 1 << 20,
		}
		model(t, r, limits, 40, window)
		if t.Failed() {
			t.Fatalf("seed %d, %+v", seed, limits)
		}
	}
}

func model(t *testing.T, r *rand.Rand, limits h2.Limits, calls, window int) {
	jobs := map[string]*job{}
	rest := [2]map[*job]*[]byte{{}, {}}
	var held [2][]func() // data that was shown and is consumed later
	hold := func(end int, s *h2.Stream, j *job, n int) {
		held[end] = append(held[end], func() {
			if j.streams[end] == s && j.closed[end] == 0 {
				s.Consumed(n)
			}
		})
	}
	ear := func(end int, in, out func(j *job) *side) *ears {
		return &ears{
			data: func(s *h2.Stream, p []byte, last bool) {
				j := s.User.(*job)
				in(j).got = append(in(j).got, p...)
				in(j).ended = last
				hold(end, s, j, len(p))
			},
			trailers: func(s *h2.Stream, f message.Fields) {
				j := s.User.(*job)
				in(j).gotTrailers, in(j).ended = append(message.Fields{}, f...), true
			},
			writable: func(s *h2.Stream) {
				j := s.User.(*job)
				out(j).write(s, rest[end][j])
			},
			closed: func(s *h2.Stream, why h2.Cause) {
				j := s.User.(*job)
				j.closed[end]++
				if why != (h2.Cause{}) {
					t.Errorf("%s closed: %v", j.path, why)
				}
			},
		}
	}
	there, back := func(j *job) *side { return &j.there }, func(j *job) *side { return &j.back }
	atServer, atClient := ear(1, there, back), ear(0, back, there)
	begin := func(end int, s *h2.Stream, j *job, d *side) {
		if !d.bodiless() {
			body := d.body
			rest[end][j] = &body
			d.write(s, &body)
		}
	}
	var late []func() // answers that don't come at once
	atServer.request = func(s *h2.Stream, q *message.Request, last bool) {
		j := jobs[q.Path]
		s.User, j.streams[1] = j, s
		j.there.gotFields, j.there.ended = append(message.Fields{}, q.Fields...), last
		if want := j.there.length; !(q.Length == want || last && want == message.Unknown) {
			t.Errorf("length %d, want %d", q.Length, want)
		}
		reply := func() {
			d := &j.back
			if err := s.Respond(&message.Response{Status: 200, Fields: d.fields, Length: d.length}, d.bodiless()); err != nil {
				t.Error(err)
			}
			begin(1, s, j, d)
		}
		if r.IntN(2) == 0 {
			reply()
		} else {
			late = append(late, reply)
		}
	}
	atClient.response = func(s *h2.Stream, q *message.Response, last bool) {
		j := s.User.(*job)
		j.back.gotFields, j.back.ended = append(message.Fields{}, q.Fields...), last
	}
	pool := h2.NewPool()
	ends := [2]*h2.Conn{h2.NewClient(limits, pool, atClient), h2.NewServer(limits, pool, atServer)}
	var wire [2][]byte
	for step, opened := 0, 0; opened < calls || ends[0].Streams() > 0 || ends[1].Streams() > 0; step++ {
		if step > 400_000 {
			t.Errorf("stuck: %d opened, %d and %d streams", opened, ends[0].Streams(), ends[1].Streams())
			return
		}
		switch end := r.IntN(2); r.IntN(5) {
		case 0:
			if opened == calls || !ends[0].CanOpen() {
				break
			}
			j := &job{path: fmt.Sprintf("/%d", opened), there: randomSide(r, window), back: randomSide(r, window)}
			jobs[j.path] = j
			opened++
			d := &j.there
			s, err := ends[0].Request(&message.Request{
				Method: "POST", Authority: "a", Path: j.path, Fields: d.fields, Length: d.length,
			}, d.bodiless())
			if err != nil {
				t.Fatal(err)
			}
			s.User, j.streams[0] = j, s
			begin(0, s, j, d)
		case 1:
			if n := len(ends[end].Output()); n > 0 {
				n = 1 + r.IntN(n)
				wire[end] = append(wire[end], ends[end].Output()[:n]...)
				ends[end].Sent(n)
			}
		case 2:
			if n := len(wire[end]); n > 0 {
				n = 1 + r.IntN(n)
				chunk := bytes.Clone(wire[end][:n])
				wire[end] = wire[end][n:]
				if err := ends[1-end].Feed(0, chunk); err != nil {
					t.Fatal(err)
				}
				clear(chunk)
			}
		case 3:
			if n := len(held[end]); n > 0 {
				held[end][0]()
				held[end] = held[end][1:]
			}
		case 4:
			if n := len(late); n > 0 {
				late[0]()
				late = late[1:]
			}
		}
	}
	for _, j := range jobs {
		for _, d := range []side{j.there, j.back} {
			if !d.ended || !bytes.Equal(d.got, d.body) || len(d.fields) != len(d.gotFields) || len(d.trailers) != len(d.gotTrailers) ||
				len(d.fields) > 0 && !reflect.DeepEqual(d.fields, d.gotFields) || len(d.trailers) > 0 && !reflect.DeepEqual(d.trailers, d.gotTrailers) {
				t.Fatalf("%s: %d of %d bytes, ended %v, fields %v of %v, trailers %v of %v", j.path, len(d.got), len(d.body), d.ended,
					d.gotFields, d.fields, d.gotTrailers, d.trailers)
			}
		}
		if j.closed != [2]int{1, 1} {
			t.Fatalf("%s closed %v times", j.path, j.closed)
		}
	}
}
