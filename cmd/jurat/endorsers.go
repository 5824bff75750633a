package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// endorserFlags say where endorsements come from that evidence does not carry.
type endorserFlags struct {
	offline bool
	cache   string
	hosts   endorse.Hosts
	files   list
	tpm     list // certificates of authorities for TPM keys
}

// endorserFlagNames are allowed beside a configuration file.
func endorserFlagNames() []string {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(endorserFlags).register(fs)
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

func (f *endorserFlags) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.offline, "offline", false, "fetch nothing: use what the evidence carries and --endorsements")
	fs.Var(&f.files, "endorsements", "`FILE|DIR` of endorsements, asked before the vendors: a bundle (jurat endorse export), certificates, CRLs, Intel collateral; public keys become trust anchors; repeat for more")
	fs.Var(&f.tpm, "tpm-root", "certificate of an authority that certifies keys of TPMs, DER or PEM `FILE`; repeat for more")
	f.registerServices(fs)
}

func (f *endorserFlags) registerServices(fs *flag.FlagSet) {
	f.registerCache(fs)
	fs.StringVar(&f.hosts.AMD, "kds", "", "base `URL` of a mirror of AMD's Key Distribution Service")
	fs.StringVar(&f.hosts.Intel, "pcs", "", "base `URL` of a cache of Intel's Provisioning Certification Service (PCCS)")
	fs.StringVar(&f.hosts.IntelRootCRL, "intel-root-crl", "", "whole `URL` of the CRL of Intel's root (default: Intel's, or /sgx/certification/v4/rootcacrl of --pcs)")
}

func (f *endorserFlags) registerCache(fs *flag.FlagSet) {
	fs.StringVar(&f.cache, "cache", "", "`directory` that keeps fetched endorsements (default: jurat/endorsements in the user's cache directory)")
}

// cacheDir is the directory of the cache; empty where there is none.
func (f *endorserFlags) cacheDir() string {
	if f.cache != "" {
		return f.cache
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "jurat", "endorsements")
}

// service makes the service that asks the vendors. changed, which may be nil, is told of answers that are not as they were.
func (f *endorserFlags) service(a *app, changed func(attest.Ref)) (*endorse.Service, error) {
	return endorse.New(f.hosts, f.cacheDir(), endorse.WithClock(a.now), endorse.WithChanged(changed))
}

// endorsers are all that endorsements come from: files first, then the vendors.
type endorsers struct {
	endorse.Chain
	vendors *endorse.Service // nil when offline
	tpm     *tpm.Roots       // nil where the operator names none
	changed chan struct{}    // something has: it holds one
}

// run keeps what is in use fresh until ctx ends.
func (e *endorsers) run(ctx context.Context) {
	if e.vendors != nil {
		e.vendors.Run(ctx)
	}
}

func (f *endorserFlags) endorser(a *app) (*endorsers, error) {
	e := new(endorsers)
	var err error
	if e.tpm, err = a.readTPMRoots(f.tpm); err != nil {
		return nil, err
	}
	if len(f.files) > 0 {
		static, err := endorse.Open(f.files...)
		if err != nil {
			return nil, err
		}
		e.Chain = append(e.Chain, static)
	}
	if f.offline {
		e.Chain = append(e.Chain, attest.NoEndorser{})
		return e, nil
	}
	e.changed = make(chan struct{}, 1)
	service, err := f.service(a, func(attest.Ref) {
		select {
		case e.changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	e.vendors, e.Chain = service, append(e.Chain, service)
	return e, nil
}
