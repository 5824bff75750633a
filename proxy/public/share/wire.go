package share

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jurat-tls/jurat/attest"
)

// Values are what is shared. Where there is nothing under a key the error is fs.ErrNotExist. Lock waits until the lock is there.
type Values interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error // with all that is below key
	List(ctx context.Context, prefix string, recursive bool) ([]string, error)
	Info(ctx context.Context, key string) (Info, error)
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// Info is what is known of a key without its value.
type Info struct {
	Modified time.Time `json:"modified"`
	Size     int64     `json:"size"`
	Terminal bool      `json:"terminal"` // it has a value; else there is something below it only
}

// Conn is a connection whose peer was appraised; *ratls.Conn is one.
type Conn interface {
	net.Conn
	// Result is that of the peer, nil where it was not asked for evidence. It is replaced when the peer attests anew, and when a policy
	// changes.
	Result() *attest.Result
}

const (
	maxKey    = 512      // bytes of a key
	maxParts  = 8        // of a key: each but the last is a directory
	maxValue  = 1 << 20  // bytes of a value
	maxValues = 4096     // values, and directories, that there may be for a replica to add one
	maxTotal  = 64 << 20 // bytes of all of them
	maxList   = 1 << 20  // bytes of an answer that lists keys
	maxInfo   = 4 << 10  // bytes of an answer about one
	maxToken  = 64       // bytes of what knows a lease
)

// affirmed reports why nothing is to move over a connection; nil where it may.
func affirmed(conn Conn) error {
	r := conn.Result()
	switch {
	case r == nil:
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "public.share", Got: "a connection without an appraisal"}
	case !r.Affirmed():
		return r.Err()
	case !r.Level().AtLeast(attest.LevelSession): // whatever the policy takes: private keys go over it
		return &attest.Error{Code: attest.CodeBindingTooWeak, Check: "public.share", Got: string(r.Level()), Want: string(attest.LevelSession)}
	}
	return nil
}

// guarded is a connection over which nothing moves once its peer is affirmed no more.
type guarded struct{ Conn }

func (g guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 {
		if refused := affirmed(g.Conn); refused != nil {
			clear(p[:n])
			return 0, refused
		}
	}
	return n, err
}

func (g guarded) Write(p []byte) (int, error) {
	if err := affirmed(g.Conn); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// checkKey reports what is wrong with a key: it becomes a path at the holder, and a line in a log.
func checkKey(key string) error {
	bad := &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: fmt.Sprintf("the key %.100q", key), Want: "at most 8 parts of a path, of 512 bytes that can be printed"}
	if len(key) > maxKey || strings.Count(key, "/") >= maxParts || !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) || r == '\\' }) {
		return bad
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return bad
		}
	}
	return nil
}

// checkPrefix is checkKey for what is listed, which may be all.
func checkPrefix(key string) error {
	if key == "" {
		return nil
	}
	return checkKey(key)
}

var (
	errHeld    = errors.New("somebody else has the lock")
	errMany    = &attest.Error{Code: attest.CodeOversized, Check: "public.share", Got: "more values or locks than are shared"}
	errBroken  = &attest.Error{Code: attest.CodeStoreBroken, Check: "public.share", Got: "the holder can't open it"}
	errInvalid = &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: "a request that the holder does not take"}
	errFailed  = &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: "the holder has failed, and its log says why"}
)

// outcomes are the errors that go over the wire, by their status. Of any other one the peer learns no more than that there was one.
var outcomes = []struct {
	status int
	err    error
}{
	{http.StatusNotFound, fs.ErrNotExist},
	{http.StatusConflict, errHeld},
	{http.StatusInsufficientStorage, errMany},
	{http.StatusUnprocessableEntity, errBroken},
	{http.StatusBadRequest, errInvalid},
}

// statusOf is how an error is told.
func statusOf(err error) int {
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return o.status
		}
	}
	switch attest.CodeOf(err) {
	case attest.CodeStoreBroken:
		return http.StatusUnprocessableEntity
	case attest.CodeOversized:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

// outcomeOf is what a status tells.
func outcomeOf(status int) error {
	if status == http.StatusOK {
		return nil
	}
	for _, o := range outcomes {
		if o.status == status {
			return o.err
		}
	}
	return errFailed
}

// readBounded reads all that there is, unless that is more than most.
func readBounded(r io.Reader, most int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(raw)) > most {
		return nil, &attest.Error{Code: attest.CodeOversized, Check: "public.share", Want: fmt.Sprintf("at most %d bytes", most)}
	}
	return raw, err
}

// decodeInfo reads what a holder says of a key.
func decodeInfo(raw []byte) (Info, error) {
	var i Info
	if err := json.Unmarshal(raw, &i); err != nil || i.Size < 0 {
		return Info{}, &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: "an answer that makes no sense", Err: err}
	}
	return i, nil
}

// decodeList reads the keys that a holder lists, which have to be below prefix.
func decodeList(raw []byte, prefix string) ([]string, error) {
	var keys []string
	err := json.Unmarshal(raw, &keys)
	for _, k := range keys {
		if prefix != "" && !strings.HasPrefix(k, prefix+"/") {
			err = cmp.Or(err, errors.New("a key that was not asked for"))
		}
		err = cmp.Or(err, checkKey(k))
	}
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: "an answer that makes no sense", Err: err}
	}
	return keys, nil
}
