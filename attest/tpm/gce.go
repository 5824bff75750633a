package tpm

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// oidInstance is Google's extension that names the Compute Engine instance whose vTPM a certificate is for.
var oidInstance = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}

// instance is the value of that extension.
type instance struct {
	Zone          string `asn1:"utf8"`
	ProjectNumber int64
	ProjectID     string `asn1:"utf8"`
	InstanceID    int64
	InstanceName  string   `asn1:"utf8"`
	Security      security `asn1:"explicit,tag:0"`
}

// security tells what Google says of the instance's host. Fields with a higher tag are not published.
type security struct {
	Version    int64 `asn1:"explicit,tag:0,optional"`
	Production bool  `asn1:"explicit,tag:1,optional"`
}

// instanceOf decodes the extension; nil where the certificate has none.
func instanceOf(cert *x509.Certificate) (*instance, error) {
	for _, x := range cert.Extensions {
		if !x.Id.Equal(oidInstance) {
			continue
		}
		in := new(instance)
		rest, err := asn1.Unmarshal(x.Value, in)
		if err != nil || len(rest) != 0 || in.Zone == "" || in.ProjectID == "" || in.InstanceID == 0 {
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkChain, Got: "an extension that names no instance", Err: err}
		}
		if !in.Security.Production {
			return nil, attest.Refuse(attest.CodeChain, checkChain, "a certificate of an instance that is not in production", "one that is")
		}
		return in, nil
	}
	return nil, nil
}

// String names the instance as Google's interfaces do.
func (in *instance) String() string {
	return fmt.Sprintf("projects/%s/zones/%s/instances/%d", in.ProjectID, in.Zone, uint64(in.InstanceID))
}
