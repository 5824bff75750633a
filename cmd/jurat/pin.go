package main

import (
	"context"
	"encoding/pem"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// pin appraises a target and writes the pin of its key, or its certificate.
func (a *app) pin(ctx context.Context, args []string) error {
	fs := a.flags("pin -p policy.yaml [--json | --pem] TARGET")
	rf := a.relyingFlags(fs)
	asJSON := fs.Bool("json", false, "write JSON")
	asPEM := fs.Bool("pem", false, "write the certificate, for curl --cacert and the like")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("pin takes one TARGET")
	}
	if *asJSON && *asPEM {
		return usageError("pin writes JSON or PEM")
	}
	rp, err := rf.load(a)
	if err != nil {
		return err
	}
	ap, err := rp.dialCertificate(ctx, rest[0])
	if err != nil {
		return err
	}
	a.warnSimulated(ap.result, ap.target)
	if !ap.result.Affirmed() {
		err := forCertificate(withSubject(ap.result.Err(), ap.target))
		a.complain(err)
		return exitError(attest.CodeOf(err).Exit())
	}
	if *asPEM {
		return pem.Encode(a.stdout, &pem.Block{Type: "CERTIFICATE", Bytes: ap.shown.Chain[0]})
	}
	v := verdictOf(ap)
	if *asJSON {
		return writeJSON(a.stdout, map[string]any{"target": ap.target, "pin": v.Pin, "simulated": v.Simulated})
	}
	_, err = fmt.Fprintln(a.stdout, v.Pin)
	return err
}
