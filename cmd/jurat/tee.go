package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
)

// teeUsage describes the value of --tee.
const teeUsage = "`platform` that makes our evidence: auto, snp, or " + sim.Syntax

// platform makes our evidence.
type platform struct {
	attest.Attester
	name      string
	simulated bool
}

func teeName(spec string) string {
	name, _, _ := strings.Cut(spec, ",")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// checkTEE checks the value of --tee as far as that goes without opening the platform.
func checkTEE(spec string) error {
	switch name := teeName(spec); name {
	case "auto", "snp":
		if name != spec {
			return usageError("--tee %s takes no options", name)
		}
		return nil
	case "sim":
		_, err := sim.ParseConfig(spec)
		return err
	}
	return usageError("--tee %.40q is not known; it is auto, snp or sim", spec)
}

// openTEE opens the platform that spec names. "auto" is the hardware that is here and never a simulation: a proxy that
// silently proved nothing would be worse than one that does not start.
func openTEE(spec string, endorser attest.Endorser, log *slog.Logger) (*platform, error) {
	if err := checkTEE(spec); err != nil {
		return nil, err
	}
	switch teeName(spec) {
	case "auto", "snp":
		attester, err := snp.NewAttester()
		if err != nil {
			return nil, err
		}
		return &platform{Attester: &stapler{attester, endorser, log}, name: string(snp.Format)}, nil
	case "sim":
		config, err := sim.ParseConfig(spec)
		if err != nil {
			return nil, err
		}
		if config.Dir == "" {
			cache, err := os.UserCacheDir()
			if err != nil {
				return nil, usageError("no directory for the simulated root: %v; say --tee sim,dir=PATH", err)
			}
			config.Dir = filepath.Join(cache, "jurat", "sim")
		}
		p, err := sim.New(config)
		if err != nil {
			return nil, err
		}
		return &platform{Attester: p, name: p.String(), simulated: true}, nil
	}
	return nil, usageError("--tee %.40q is not known; it is auto, snp or sim", spec)
}

// stapler adds the vendor's endorsements to evidence, so that relying parties need not ask the vendor. Without them the
// evidence is as good; a relying party then fetches them itself.
type stapler struct {
	attest.Attester
	endorser attest.Endorser
	log      *slog.Logger
}

// Attest implements attest.Attester.
func (s *stapler) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	ev, err := s.Attester.Attest(ctx, data)
	if err != nil {
		return nil, err
	}
	ev, err = snp.Staple(ctx, ev, s.endorser)
	if err != nil {
		var coded *attest.Error
		if !errors.As(err, &coded) || !coded.Code.Undecidable() {
			return nil, err
		}
		s.log.Warn("endorsements not stapled", "code", coded.Code, "error", err.Error())
	}
	return ev, nil
}
