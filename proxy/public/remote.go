package public

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/certmagic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/public/share"
)

// Values are what a share.Server serves of a storage: all of it. From then on other machines may have the keys.
func (s *Storage) Values() share.Values {
	s.shared.Store(true)
	return local{s.values}
}

// local implements share.Values.
type local struct{ certmagic.Storage }

func (l local) Info(ctx context.Context, key string) (share.Info, error) {
	k, err := l.Stat(ctx, key)
	return share.Info{Modified: k.Modified, Size: k.Size, Terminal: k.IsTerminal}, err
}

// NewRemote is the Storage that another replica has; a *share.Client asks it. Where that can't be reached, certificates stay in use, of
// other Certificates too, and no new ones are asked for.
func NewRemote(values share.Values) *Storage {
	r := &remote{Values: values, turn: make(chan struct{}, 1), found: map[string]found{}}
	s := &Storage{values: r, close: func() error { return nil }, served: new(sync.Map)}
	s.shared.Store(true)
	return s
}

// remote implements certmagic.Storage.
type remote struct {
	share.Values

	turn  chan struct{}
	clock atomic.Uint64
	found map[string]found // by whoever has the turn
}

// found is what was found under a key, by who began at that time of the clock.
type found struct {
	began uint64
	value []byte
	err   error
}

// Load asks the holder. Challenges are asked for by whoever says that it is a CA: of those that wait for the same one at once, one asks for
// all, and not before the last of them has come. What renews locks is not to stand in a queue behind strangers.
func (r *remote) Load(ctx context.Context, key string) ([]byte, error) {
	if !strings.HasPrefix(key, challengesPrefix) {
		return r.Values.Load(ctx, key)
	}
	came := r.clock.Add(1)
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, ok := r.found[key]
	if !ok || f.began < came {
		f = found{began: r.clock.Add(1)}
		f.value, f.err = r.Values.Load(ctx, key)
		if ctx.Err() != nil { // which says nothing to the others
			return nil, ctx.Err()
		}
		if len(f.value) > bodyLimit {
			f.value, f.err = nil, &attest.Error{Code: attest.CodeOversized, Check: "public.storage", Subject: key, Want: fmt.Sprintf("at most %d bytes", bodyLimit)}
		}
		if len(r.found) >= maxFound {
			clear(r.found)
		}
		r.found[key] = f
	}
	return f.value, f.err
}

// maxFound bounds of how many challenges something is remembered, which is no more than a CA says at once.
const maxFound = 256

// Exists implements certmagic.Storage. What can't be said is taken for yes: else the library would have a CA issue what may be there.
func (r *remote) Exists(ctx context.Context, key string) bool {
	_, err := r.Info(ctx, key)
	return !errors.Is(err, fs.ErrNotExist)
}

// Stat implements certmagic.Storage.
func (r *remote) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	i, err := r.Info(ctx, key)
	return certmagic.KeyInfo{Key: key, Modified: i.Modified, Size: i.Size, IsTerminal: i.Terminal}, err
}
