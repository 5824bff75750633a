package share

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const (
	dialTime      = 10 * time.Second
	operationTime = 12 * time.Second
)

// Dial connects to the holder and appraises it. It ends when ctx does.
type Dial func(ctx context.Context) (Conn, error)

// Client uses the storage of another replica. It implements Values, and is safe for concurrent use. Where the holder can't be reached the
// error is an *attest.Error with the code CodeStorageAway, and where it is refused, or refuses us, that of the refusal.
type Client struct {
	dial      Dial
	transport atomic.Pointer[http.Transport]
	log       *slog.Logger
	living    context.Context
	end       context.CancelFunc
	work      sync.WaitGroup

	mu   sync.Mutex
	held map[string]*holding
	told attest.Code // what was last said of the holder; "" where it is there
}

// holding is a lock that is had.
type holding struct {
	token string
	end   context.CancelFunc
}

// NewClient makes one that connects by dial when there is something to ask.
func NewClient(dial Dial, log *slog.Logger) *Client {
	c := &Client{dial: dial, log: log, held: map[string]*holding{}}
	c.living, c.end = context.WithCancel(context.Background())
	c.transport.Store(c.connections())
	return c
}

func (c *Client) connections() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTime)
			defer cancel()
			defer context.AfterFunc(c.living, cancel)()
			conn, err := c.dial(ctx)
			if err != nil {
				return nil, err
			}
			if err := affirmed(conn); err != nil { // of which net/http would not tell
				_ = conn.Close()
				return nil, err
			}
			return guarded{conn}, nil
		},
		MaxConnsPerHost: 4, MaxIdleConnsPerHost: 4, IdleConnTimeout: idleTime / 2, MaxResponseHeaderBytes: 8 << 10, DisableCompression: true,
	}
}

// Renew has connections made anew, as soon as nothing is under way on those that there are.
func (c *Client) Renew() { c.transport.Swap(c.connections()).CloseIdleConnections() }

// Close ends what renews locks. Those that are held end by themselves.
func (c *Client) Close() {
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.work.Wait()
	c.transport.Load().CloseIdleConnections()
}

// ask has the holder do something, and answers at most limit bytes.
func (c *Client) ask(ctx context.Context, operation string, query url.Values, body []byte, limit int64) ([]byte, error) {
	check := checkKey
	if operation == "list" {
		check = checkPrefix
	}
	if err := check(query.Get("key")); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	r, err := http.NewRequestWithContext(bounded, http.MethodPost, "http://storage/"+operation+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header["Idempotency-Key"] = nil // each can be asked for twice, where a connection has ended meanwhile
	var answer []byte
	resp, err := c.transport.Load().RoundTrip(r)
	if err == nil {
		defer resp.Body.Close()
		answer, err = readBounded(resp.Body, limit)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = away(err)
	c.tell(err)
	if err != nil {
		return nil, err
	}
	return answer, outcomeOf(resp.StatusCode)
}

// away gives what is wrong with the connection to the holder its code.
func away(err error) error {
	switch attest.CodeOf(err) {
	case attest.CodeUnreachable, attest.CodeTimeout, attest.CodeHandshake, attest.CodeInternal: // the last one is of what has no code
		return &attest.Error{Code: attest.CodeStorageAway, Check: "public.share", Err: err}
	}
	return err
}

// tell says what has become of the holder, where it is another thing than before.
func (c *Client) tell(err error) {
	is := attest.CodeOf(err)
	c.mu.Lock()
	was := c.told
	c.told = is
	c.mu.Unlock()
	switch {
	case is == was:
	case err == nil:
		c.log.Info("the storage of public certificates is there again")
	default:
		c.log.Error("no storage of public certificates: those that are there stay in use until they expire", "code", string(is), "error", err.Error())
	}
}

func of(key string) url.Values { return url.Values{"key": {key}} }

// Load implements Values.
func (c *Client) Load(ctx context.Context, key string) ([]byte, error) {
	return c.ask(ctx, "load", of(key), nil, maxValue)
}

// Store implements Values.
func (c *Client) Store(ctx context.Context, key string, value []byte) error {
	if len(value) > maxValue {
		return &attest.Error{Code: attest.CodeOversized, Check: "public.share", Subject: key, Want: fmt.Sprintf("at most %d bytes", maxValue)}
	}
	_, err := c.ask(ctx, "store", of(key), value, 0)
	return err
}

// Delete implements Values.
func (c *Client) Delete(ctx context.Context, key string) error {
	_, err := c.ask(ctx, "delete", of(key), nil, 0)
	return err
}

// List implements Values.
func (c *Client) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	query := of(prefix)
	query.Set("recursive", strconv.FormatBool(recursive))
	raw, err := c.ask(ctx, "list", query, nil, maxList)
	if err != nil {
		return nil, err
	}
	return decodeList(raw, prefix)
}

// Info implements Values.
func (c *Client) Info(ctx context.Context, key string) (Info, error) {
	raw, err := c.ask(ctx, "info", of(key), nil, maxInfo)
	if err != nil {
		return Info{}, err
	}
	return decodeInfo(raw)
}

// Lock implements Values. The lock is kept until Unlock, as long as the holder can be told so.
func (c *Client) Lock(ctx context.Context, name string) error {
	query := of(name)
	query.Set("token", rand.Text())
	for {
		_, err := c.ask(ctx, "lock", query, nil, 0)
		if err == nil {
			return c.keep(name, query)
		}
		if errors.Is(err, errHeld) {
			select {
			case <-time.After(asked):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		_, _ = c.ask(context.WithoutCancel(ctx), "unlock", query, nil, 0) // we may be the next to have it
		return err
	}
}

// keep renews a lock until Unlock.
func (c *Client) keep(name string, query url.Values) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.living.Err() != nil {
		return c.living.Err()
	}
	if was := c.held[name]; was != nil { // its lease has run out: nobody would unlock what it takes again
		was.end()
	}
	ctx, end := context.WithCancel(c.living)
	c.held[name] = &holding{query.Get("token"), end}
	c.work.Go(func() {
		ticker := time.NewTicker(renewed)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if _, err := c.ask(ctx, "lock", query, nil, 0); errors.Is(err, errHeld) {
				c.log.Warn("a lock on public certificates has ended too soon", "lock", name)
				return
			}
		}
	})
	return nil
}

// Unlock implements Values. It gives back what Lock has taken, whether ctx has ended or not; what the holder can't be told ends by itself.
func (c *Client) Unlock(ctx context.Context, name string) error {
	c.mu.Lock()
	h := c.held[name]
	delete(c.held, name)
	c.mu.Unlock()
	if h == nil {
		return &attest.Error{Code: attest.CodeInternal, Check: "public.share", Got: fmt.Sprintf("%.100q", name), Want: "a lock that is held"}
	}
	h.end()
	query := of(name)
	query.Set("token", h.token)
	_, err := c.ask(context.WithoutCancel(ctx), "unlock", query, nil, 0)
	return err
}
