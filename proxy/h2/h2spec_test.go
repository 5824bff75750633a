package h2_test

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// Every case of h2spec, which asks a server for what RFC 9113 and RFC 7541 say.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	body := []byte(strings.Repeat("jurat ", 100))
	addr := listen(t, func() *h2.Conn {
		reply := func(s *h2.Stream) {
			send(s, &message.Response{Status: 200, Length: int64(len(body))}, body, nil)
		}
		return h2.NewServer(h2.Limits{Connect: "websocket"}, nil, &ears{
			request: func(s *h2.Stream, _ *message.Request, end bool) {
				if end {
					reply(s)
				}
			},
			data: func(s *h2.Stream, p []byte, end bool) {
				s.Consumed(len(p))
				if end {
					reply(s)
				}
			},
			trailers: func(s *h2.Stream, _ message.Fields) { reply(s) },
			writable: writeMore,
		})
	})
	out, err := exec.Command("go", "-C", "../../test/tools", "tool", "h2spec", "-S", "-o", "2", "-p", strconv.Itoa(addr.Port)).CombinedOutput()
	text := string(out)
	if err != nil || !strings.Contains(text, " 0 failed") || !strings.Contains(text, " 0 skipped") {
		t.Errorf("%v\n%s", err, text)
	}
	t.Log(text[strings.LastIndex(text, "Finished"):])
}
