package main

import (
	"fmt"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/ratls"
)

// processConfig is what concerns the whole process. serveConfig.file says where files are that it names.
type processConfig struct {
	Admin     *adminConfig     `yaml:"admin"`      // where operators ask this process how it is
	AccessLog *accessLogConfig `yaml:"access_log"` // a line for every request and every raw connection, default none
	Tracing   *tracingConfig   `yaml:"tracing"`    // spans for a collector
	Takeover  string           `yaml:"takeover"`   // a unix socket by which a new process takes the listening sockets over, so that a restart refuses no connection
}

// adminConfig is a listener for operators, in plain.
type adminConfig struct {
	Address      string   `yaml:"address,required"` // host:port, unix:/path or systemd:NAME
	UnsafeListen bool     `yaml:"unsafe_listen"`    // other machines may connect
	PProf        bool     `yaml:"pprof"`            // profiles of the program, which show what it holds in memory
	Hosts        []string `yaml:"hosts"`            // further names that it may be asked by, beside those of the address: no web page can ask by another
}

// accessLogConfig is where lines about requests go.
type accessLogConfig struct {
	Path   string `yaml:"path,required"`        // a file, stdout (or "-") or stderr
	Format string `yaml:"format,one=text|json"` // default text
}

// tracingConfig is where spans go.
type tracingConfig struct {
	Endpoint    string  `yaml:"endpoint,required"`    // URL of a collector that speaks OTLP over HTTP
	Sample      float64 `yaml:"sample,required,zero"` // the share of requests that is traced where the caller has not decided, 0 to 1
	ServiceName string  `yaml:"service_name"`         // default jurat
	HeadersFile string  `yaml:"headers_file"`         // a file with headers for the collector, one "Name: value" a line
	UnsafePlain bool    `yaml:"unsafe_plain"`         // spans may go to another machine over http://
}

// equal reports whether two are the same.
func (p *processConfig) equal(other *processConfig) bool { return reflect.DeepEqual(p, other) }

// check reports what is not allowed; the subjects are paths.
func (p *processConfig) check(listeners []config.Listener) error {
	if a := p.Admin; a != nil {
		if err := config.CheckAddress(a.Address); err != nil {
			return withSubject(err, "admin.address")
		}
		if !a.UnsafeListen && !config.Local(a.Address) {
			return badValue("admin.address", a.Address+", which other machines can reach in plain", "a loopback address or a unix socket, or unsafe_listen: true")
		}
		for _, l := range listeners {
			if l.Address == a.Address && !isSystemd(a.Address) && !strings.HasSuffix(a.Address, ":0") {
				return badValue("admin.address", strconv.Quote(a.Address), "an address that no listener has")
			}
		}
		for i, h := range a.Hosts {
			if err := ratls.CheckName(h); err != nil {
				return withSubject(err, fmt.Sprintf("admin.hosts[%d]", i))
			}
		}
	}
	if t := p.Tracing; t != nil {
		u, err := url.Parse(t.Endpoint)
		switch {
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1/traces"):
			return badValue("tracing.endpoint", fmt.Sprintf("%.100q", t.Endpoint), "http(s)://host:port, below which /v1/traces is")
		case u.Scheme == "http" && !t.UnsafePlain && !config.Local(net.JoinHostPort(u.Hostname(), "0")):
			return badValue("tracing.endpoint", fmt.Sprintf("%.100q", t.Endpoint)+", which is another machine", "https, or unsafe_plain: true")
		case t.Sample > 1:
			return badValue("tracing.sample", strconv.FormatFloat(t.Sample, 'g', -1, 64), "0 to 1")
		}
	}
	return nil
}

func badValue(path, got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "config", Subject: path, Got: got, Want: want}
}
