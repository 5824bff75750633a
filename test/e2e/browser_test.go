package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/wellknown"
	"github.com/jurat-tls/jurat/test/vectors"
)

const browserPage = "../../docs/browser/verify.html"

// hold keeps the page from being loaded, which is when chromium writes it down, until there is a verdict: time is real.
const hold = `<iframe id="hold"></iframe><script>
hold.contentDocument.open();
const verdict = document.getElementById("verdict"), let_go = () => { if (verdict.dataset.verdict) hold.contentDocument.close(); };
new MutationObserver(let_go).observe(verdict, { attributes: true });
let_go();
</script>`

// browse opens the page as from a disk, for a target, and answers its verdict and what it says of the checks.
func (l *lab) browse(params url.Values) (verdict, checks string) {
	l.Helper()
	return l.browseWith(params, "--ignore-certificate-errors")
}

// trusting makes chromium one that takes certificates of an authority, and no others that its machine doesn't.
func (l *lab) trusting(root string) {
	l.Helper()
	store := l.path(".pki/nssdb") // of HOME
	if err := os.MkdirAll(store, 0o700); err != nil {
		l.Fatal(err)
	}
	for _, args := range [][]string{{"-N", "-d", "sql:" + store, "--empty-password"}, {"-A", "-d", "sql:" + store, "-n", "lab", "-t", "C,,", "-i", root}} {
		if o := l.run("certutil", args...); o.code != 0 {
			l.Fatalf("certutil %q: %+v", args, o)
		}
	}
}

// browseWith is browse with another flag of chromium.
func (l *lab) browseWith(params url.Values, flag string) (verdict, checks string) {
	l.Helper()
	raw, err := os.ReadFile(browserPage)
	if err != nil {
		l.Fatal(err)
	}
	page := l.write("verify.html", strings.Replace(string(raw), "</body>", hold+"</body>", 1))
	out := l.run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+l.path("chromium"),
		flag, "--timeout=50000", "--dump-dom", "file://"+page+"#"+params.Encode())
	found := regexp.MustCompile(`data-verdict="([a-z]*)"`).FindStringSubmatch(out.stdout)
	table := regexp.MustCompile(`(?s)<table id="checks">(.*)</table>`).FindStringSubmatch(out.stdout)
	if out.code != 0 || found == nil || table == nil {
		l.Fatalf("%+v", out)
	}
	rows := strings.ReplaceAll(table[1], "</tr>", "\n")
	return found[1], regexp.MustCompile(`<[^>]*>`).ReplaceAllString(strings.ReplaceAll(rows, "</td><td>", " "), "")
}

// between answers pages with what change makes of the document that answer has.
func between(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) string {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "application/json")
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestBrowserPage(t *testing.T) {
	need(t, "chromium")
	l := newLab(t)
	server := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--well-known")
	target := "https://" + server.address()
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the document is what counts
	defer insecure.CloseIdleConnections()
	fetch := func(nonce []byte) *wellknown.Document {
		res, err := insecure.Get(target + wellknown.Path + "?" + wellknown.Query(nonce))
		if err != nil {
			t.Error(err)
			return nil
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
			return nil
		}
		d, err := wellknown.Unmarshal(raw)
		if err != nil {
			t.Error(res.Status, err)
		}
		return d
	}
	old := fetch(make([]byte, 32))
	if old == nil {
		t.FailNow()
	}
	root, measurement := sha256.Sum256(arkOf(t, old.Evidence)), hex.EncodeToString(old.Evidence.Raw[0x90:0xc0])
	params := func(target string) url.Values {
		return url.Values{"target": {target}, "root": {hex.EncodeToString(root[:])}, "measurement": {measurement}}
	}
	write := func(w http.ResponseWriter, d *wellknown.Document) {
		raw, err := wellknown.Marshal(d)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(raw)
	}
	// changed passes the page's nonce on and changes what comes back.
	changed := func(change func(*wellknown.Document)) string {
		return between(t, func(w http.ResponseWriter, r *http.Request) {
			nonce, err := wellknown.Nonce(r.URL.RawQuery)
			if err != nil {
				t.Error(err)
				return
			}
			if d := fetch(nonce); d != nil {
				change(d)
				write(w, d)
			}
		})
	}
	with := func(target, key, value string) url.Values {
		p := params(target)
		p.Set(key, value)
		if value == "" {
			p.Del(key)
		}
		return p
	}
	for name, c := range map[string]struct {
		params        url.Values
		verdict, says string
	}{
		"good":                {params(target), "affirmed", "ok that key signed the report"},
		"no measurement":      {with(target, "measurement", ""), "undecided", "– launch measurement " + measurement},
		"another measurement": {with(target, "measurement", strings.Repeat("0", 96)), "refused", "FAIL the measurement is"},
		"another root":        {with(target, "root", strings.Repeat("0", 64)), "refused", "FAIL the key is certified under"},
		"no rehearsal":        {with(target, "root", ""), "refused", "FAIL evidence of AMD SEV-SNP: sim-snp"},
		// Relayed as it is, the evidence is as good: the page can't see whose connection it has. It says so.
		"relayed":  {params(changed(func(*wellknown.Document) {})), "affirmed", "by the server's word"},
		"replayed": {params(between(t, func(w http.ResponseWriter, _ *http.Request) { write(w, old) })), "refused", "FAIL it is for the nonce"},
		"nonce replaced": {params(between(t, func(w http.ResponseWriter, r *http.Request) {
			d := *old
			d.Nonce, _ = wellknown.Nonce(r.URL.RawQuery)
			write(w, &d)
		})), "refused", "FAIL the hardware signed this nonce"},
		"measurement changed": {params(changed(func(d *wellknown.Document) { d.Evidence.Raw[0x90] ^= 1 })), "refused", "FAIL that key signed the report"},
		"debugging on":        {params(changed(func(d *wellknown.Document) { d.Evidence.Raw[0x0a] ^= 8 })), "refused", "FAIL debugging is off"},
		"another chip":        {params(changed(func(d *wellknown.Document) { d.Evidence.Raw[0x1a0] ^= 1 })), "refused", "FAIL it is the key of the chip"},
		"configuration":       {params(changed(func(d *wellknown.Document) { d.Config[0] ^= 1 })), "refused", "FAIL the hardware signed this nonce"},
		"key":                 {params(changed(func(d *wellknown.Document) { d.Connection[0] ^= 1 })), "refused", "FAIL the hardware signed this nonce"},
		"tree":                {params(changed(func(d *wellknown.Document) { d.Size++ })), "refused", "FAIL an inclusion proof"},
		"no chain":            {params(changed(func(d *wellknown.Document) { d.Evidence.Endorsements = nil })), "refused", "FAIL no certificate of the chip"},
		"foreign key": {params(changed(func(d *wellknown.Document) {
			d.Evidence.Endorsements[0].Raw = foreign(t, d.Evidence.Endorsements[0].Raw)
		})), "refused", "FAIL the key is certified"},
		"other type": {params(between(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			write(w, old)
		})), "refused", "FAIL an answer of another type"},
		"huge": {params(between(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 200<<10)) })), "refused", "FAIL an answer that is too long"},
		"redirect": {params(between(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target+r.URL.RequestURI(), http.StatusFound)
		})), "refused", "FAIL TypeError"},
		"busy": {params(between(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })), "refused", "FAIL status 429: try again"},
	} {
		t.Run(name, func(t *testing.T) {
			browser := newLab(t)
			verdict, checks := browser.browse(c.params)
			if verdict != c.verdict || !strings.Contains(checks, c.says) {
				t.Errorf("%s, want %s with %q\n%s", verdict, c.verdict, c.says, checks)
			}
		})
	}
}

// Reports of real machines verify under the roots that the page has, up to what they can't have signed: its nonce.
func TestBrowserPageOverVectors(t *testing.T) {
	need(t, "chromium")
	vectors.Dir(t)
	for _, name := range []string{"milan-v2", "turin-v5"} {
		t.Run(name, func(t *testing.T) {
			d := &wellknown.Document{}
			d.Size = 1
			d.Evidence = &attest.Evidence{
				Format: "snp", Raw: vectors.Read(t, "snp/"+name+".report"),
				Endorsements: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: vectors.Read(t, "snp/"+name+".vcek.der")}},
			}
			target := between(t, func(w http.ResponseWriter, r *http.Request) {
				d.Nonce, _ = wellknown.Nonce(r.URL.RawQuery)
				raw, err := wellknown.Marshal(d)
				if err != nil {
					t.Error(err)
				}
				_, _ = w.Write(raw)
			})
			verdict, checks := newLab(t).browse(url.Values{"target": {target}})
			for _, want := range []string{"ok the key is certified by AMD", "ok that key signed the report", "ok it is the key of the chip", "FAIL the hardware signed this nonce"} {
				if !strings.Contains(checks, want) {
					t.Errorf("no %q in\n%s", want, checks)
				}
			}
			if verdict != "refused" {
				t.Error(verdict)
			}
		})
	}
}

// The authorities that the page has are self-consistent: each is a root, or certified by one beside it.
func TestBrowserPageRoots(t *testing.T) {
	raw, err := os.ReadFile(browserPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Milan", "Genoa", "Turin"} {
		block := regexp.MustCompile(`(?s)\t` + line + `: \[\n(.*?)\t\],`).FindSubmatch(raw)
		if block == nil {
			t.Fatalf("no %s", line)
		}
		var certs []*x509.Certificate
		var root *x509.Certificate
		for _, m := range regexp.MustCompile(`"([A-Za-z0-9+/=]+)"`).FindAllSubmatch(block[1], -1) {
			der, err := base64.StdEncoding.DecodeString(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if certs = append(certs, cert); cert.Subject.CommonName == "ARK-"+line {
				root = cert
			}
		}
		if root == nil || len(certs) != 3 {
			t.Fatalf("%s: %d certificates", line, len(certs))
		}
		for _, c := range certs {
			if err := c.CheckSignatureFrom(root); err != nil {
				t.Errorf("%s: %v", c.Subject, err)
			}
		}
	}
}

// arkOf is the root that a simulated platform staples.
func arkOf(t *testing.T, ev *attest.Evidence) []byte {
	t.Helper()
	for _, e := range ev.Endorsements {
		if cert, err := x509.ParseCertificate(e.Raw); e.Kind == attest.KindCertificate && err == nil && bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			return e.Raw
		}
	}
	t.Fatal("no root among the endorsements")
	return nil
}

// foreign is a certificate with the names of another one, under a key of ours, certified by that key.
func foreign(t *testing.T, der []byte) []byte {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Error(err)
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Error(err)
		return nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: cert.Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	parent := &x509.Certificate{Subject: cert.Issuer}
	out, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
	if err != nil {
		t.Error(err)
	}
	return out
}
