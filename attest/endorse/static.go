package endorse

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Static is an attest.Endorser over endorsements that are at hand. It answers with those that fit the request.
type Static struct{ list []attest.Endorsement }

var _ attest.Endorser = (*Static)(nil)

// NewStatic makes a Static of decoded endorsements.
func NewStatic(list ...attest.Endorsement) *Static { return &Static{list: unique(list)} }

// Open reads endorsements from files and directories (not their subdirectories), as Parse does. Anything else in them is an
// error. A public key among them is an anchor from now on: whoever can write to them says whom to trust.
func Open(paths ...string) (*Static, error) {
	s := new(Static)
	for _, path := range paths {
		if err := s.add(path); err != nil {
			return nil, err
		}
	}
	s.list = unique(s.list)
	return s, nil
}

func (s *Static) add(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil { // no directory
		return s.addFile(path)
	}
	if len(entries) > maxParsed {
		return &attest.Error{Code: attest.CodeOversized, Check: "endorsements", Subject: path, Got: fmt.Sprintf("%d files", len(entries)), Want: fmt.Sprintf("at most %d", maxParsed)}
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := s.addFile(filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Static) addFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer f.Close()
	raw, failed := io.ReadAll(io.LimitReader(f, MaxBundle+1))
	if failed != nil {
		return unreadable(path, failed)
	}
	if len(raw) > MaxBundle {
		return &attest.Error{Code: attest.CodeOversized, Check: "endorsements", Subject: path, Want: fmt.Sprintf("at most %d bytes", MaxBundle)}
	}
	list, err := parse(raw)
	if err != nil {
		return &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "endorsements", Subject: path, Err: err}
	}
	s.list = append(s.list, list...)
	return nil
}

func unreadable(path string, err error) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "endorsements", Subject: path, Err: err}
}

// Endorse implements attest.Endorser.
func (s *Static) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	var fitting, chain []attest.Endorsement
	for _, e := range s.list {
		if e.Kind == ref.Kind && fits(e, ref) {
			fitting = append(fitting, e)
		} else if accompanies(e, ref) {
			chain = append(chain, e)
		}
	}
	if len(fitting) == 0 {
		return nil, refuse(attest.CodeEndorsementMissing, ref, fmt.Sprintf("none among %d at hand", len(s.list)), nil)
	}
	if ref.Kind == attest.KindPublicKey {
		return fitting, nil // the operator named every one of them, and has one for each machine
	}
	// Of too many, such as those of every day, the latest are left, beside what they are verified with.
	if most := max(attest.MaxEndorsements-len(chain), 1); len(fitting) > most {
		end := func(e attest.Endorsement) time.Time { t, _ := expiry(e); return t }
		slices.SortStableFunc(fitting, func(a, b attest.Endorsement) int { return end(b).Compare(end(a)) })
		fitting = fitting[:most]
	}
	all := append(fitting, chain...)
	return all[:min(len(all), attest.MaxEndorsements)], nil
}

// Chain is an attest.Endorser that asks several in turn and takes the first answer.
type Chain []attest.Endorser

// Endorse implements attest.Endorser. When nobody has it, the error is the most telling one: that of an endorser that
// could not be asked, rather than of one that has no such thing.
func (c Chain) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	var worst error
	for _, e := range c {
		list, err := e.Endorse(ctx, ref)
		if err == nil {
			return list, nil
		}
		if worst == nil || attest.CodeOf(worst) == attest.CodeEndorsementMissing {
			worst = err
		}
	}
	if worst == nil {
		worst = refuse(attest.CodeEndorsementMissing, ref, "no endorser", nil)
	}
	return nil, worst
}
