package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/resource"
)

// side is what a TLS context says about one side of connections.
type side struct {
	validator *api.Validator // what the peer has to prove; nil where the context has no validator of ours
	identity  bool           // our attested identity is asked for by name
	secret    string         // the secret that a validator may be in, where there is none in the context itself
}

// tls reads what both kinds of contexts have in common. Certificates and what they are compared with are nothing that is carried
// out: who has no validator gets an error from whoever needs it, and never a connection.
func (s *scope) tls(at string, c *tlsv3.CommonTlsContext) side {
	at = join(at, "common_tls_context")
	var out side
	if v := c.GetTlsParams().GetTlsMaximumProtocolVersion(); v != tlsv3.TlsParameters_TLS_AUTO && v != tlsv3.TlsParameters_TLSv1_3 {
		s.bad(at+".tls_params.tls_maximum_protocol_version", v.String(), "TLSv1_3, the only version that evidence is bound to")
	}
	if sel := c.GetCustomTlsCertificateSelector(); sel != nil {
		s.within(at+".custom_tls_certificate_selector.typed_config", api.DecodeIdentity(sel.GetTypedConfig().GetTypeUrl(), sel.GetTypedConfig().GetValue()))
		out.identity = true
	}
	var here *tlsv3.CertificateValidationContext
	var sds *tlsv3.SdsSecretConfig
	of := at
	switch v := c.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		here, at = v.ValidationContext, at+".validation_context"
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		here, at = v.CombinedValidationContext.GetDefaultValidationContext(), at+".combined_validation_context.default_validation_context"
		sds, of = v.CombinedValidationContext.GetValidationContextSdsSecretConfig(), of+".combined_validation_context"
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		sds = v.ValidationContextSdsSecretConfig
	}
	if out.validator = s.validator(at, here); out.validator != nil {
		return out
	}
	out.secret = sds.GetName()
	// A control plane does not have files of this machine read, and what is in them is not measured.
	switch sds.GetSdsConfig().GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Path, *corev3.ConfigSource_PathConfigSource:
		s.bad(of+".validation_context_sds_secret_config.sds_config", "a file", "ads: secrets come from the control plane")
	}
	return out
}

// validator reads our validator in a validation context. Another one is an error: it would have to be asked, too.
func (s *scope) validator(at string, c *tlsv3.CertificateValidationContext) *api.Validator {
	config := c.GetCustomValidatorConfig()
	if config == nil {
		return nil
	}
	v, err := api.DecodeValidator(config.GetTypedConfig().GetTypeUrl(), config.GetTypedConfig().GetValue())
	if err != nil {
		s.within(at+".custom_validator_config.typed_config", err)
		return nil
	}
	return &v
}

// found answers the validator of a context, or of the secret that it names, and what has to be waited for.
func (t *translator) found(d side) (*api.Validator, []Key) {
	if d.validator != nil || d.secret == "" {
		return d.validator, nil
	}
	key := Key{resource.Secret, d.secret}
	t.need(key)
	v, ok := t.secrets[d.secret]
	if !ok {
		return nil, []Key{key}
	}
	return v, nil
}

// errNoValidator is what becomes of TLS that certificates alone would protect.
func errNoValidator(at string) error {
	return &attest.Error{
		Code: attest.CodeConfigMissing, Check: check, Subject: at, Got: "TLS that certificates alone protect",
		Want: "a custom_validator_config of the type " + strings.TrimPrefix(api.TypeValidator, typePrefix),
		Hint: "let the validation context have an AttestationValidator; connections by PKI alone are not carried out, and never made plaintext",
	}
}

// serverName is the name that an sni stands for. Istio writes outbound_.PORT_.SUBSET_.HOST for its own proxies, and HOST is
// what a service can show evidence for.
func serverName(sni string) string {
	if rest, ok := strings.CutPrefix(sni, "outbound_."); ok {
		if parts := strings.SplitN(rest, "_.", 3); len(parts) == 3 && parts[2] != "" {
			return parts[2]
		}
	}
	return sni
}

// collectSecrets reads the secrets, of which validators are all that is used.
func (t *translator) collectSecrets() {
	for _, r := range t.sorted(resource.Secret) {
		s := t.scope(Key{r.Type, r.Name})
		var m tlsv3.Secret
		if s.read(r, &m) && s.named(r, m.GetName()) {
			v := s.validator("validation_context", m.GetValidationContext())
			if len(s.errs) == 0 {
				t.secrets[r.Name] = v
			}
		}
		s.done()
	}
}
