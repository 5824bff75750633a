package admin

import (
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// endpoint is one path.
type endpoint struct {
	path   string
	change bool // asked for by POST, else by GET
	help   string
	serve  http.HandlerFunc
}

type api struct {
	source    Source
	opts      Options
	endpoints []endpoint
	byPath    map[string]*endpoint
}

func newAPI(source Source, opts Options) *api {
	a := &api{source: source, opts: opts, byPath: map[string]*endpoint{}}
	add := func(there bool, path, help string, serve http.HandlerFunc) {
		if there {
			a.endpoints = append(a.endpoints, endpoint{path, false, help, serve})
		}
	}
	change := func(there bool, path, help string, serve http.HandlerFunc) {
		if there {
			a.endpoints = append(a.endpoints, endpoint{path, true, help, serve})
		}
	}
	s := &a.source
	add(true, "/", "this page", a.index)
	add(true, "/help", "this list", a.list)
	add(true, "/ready", "200 and LIVE where the proxy takes connections, else 503 and its state", a.ready)
	add(s.ServerInfo != nil, "/server_info", "version, state, time since the start", a.serverInfo)
	add(s.Listeners != nil, "/listeners", "what is listened on (?format=json)", a.listeners)
	add(s.Clusters != nil, "/clusters", "clusters, their endpoints, and what those proved (?format=json)", a.clusters)
	add(s.Certs != nil, "/certs", "certificates, and what is attested with them", a.certs)
	add(s.ConfigDump != nil, "/config_dump", "the configuration, without secrets (?resource, ?mask, ?name_regex, ?include_eds)", a.configDump)
	add(s.Stats != nil, "/stats", "all numbers (?filter=REGEX, ?usedonly, ?format=json or prometheus)", a.stats)
	add(s.Metrics != nil, "/stats/prometheus", "all numbers for Prometheus", a.prometheus)
	add(true, "/memory", "memory in use", a.memory)
	change(s.SetLogLevel != nil, "/logging", "shows the level of the log; sets it with ?level=debug, info, warning or error", a.logging)
	change(s.ReopenLogs != nil, "/reopen_logs", "opens access logs anew, after they were renamed", a.reopenLogs)
	change(s.Drain != nil, "/drain_listeners", "stops listening, lets what is under way finish, and ends the process (?graceful, ?inboundonly, ?skip_exit)", a.drainListeners)
	change(s.Drain != nil, "/drain", "the same as /drain_listeners", a.drain)
	change(s.Quit != nil, "/quitquitquit", "ends the process", a.quit)
	if opts.Profiling {
		a.endpoints = append(a.endpoints, a.profiling()...)
	}
	for i := range a.endpoints {
		a.byPath[a.endpoints[i].path] = &a.endpoints[i]
	}
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if service, ok := a.service(r); ok {
		a.call(service, w, r)
		return
	}
	e := a.byPath[r.URL.Path]
	switch {
	case e == nil:
		fail(w, http.StatusNotFound, "not here; see /help")
	case e.change && r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, "this changes something: use POST")
	case !e.change && r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", http.MethodGet+", "+http.MethodHead)
		fail(w, http.StatusMethodNotAllowed, "this only shows something: use GET")
	default:
		e.serve(w, r)
	}
}

// service finds that of gRPC which a path names.
func (a *api) service(r *http.Request) (http.Handler, bool) {
	name, method, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !ok || method == "" {
		return nil, false
	}
	h, ok := a.source.Services[name]
	return h, ok
}

// maxCall is how long a call of gRPC can go on.
const maxCall = 10 * time.Minute

// call has a service answer. What it can take is no more than POST over HTTP/2 with a type that no form of a page has.
func (a *api) call(service http.Handler, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ProtoMajor != 2 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		fail(w, http.StatusUnsupportedMediaType, "this is for clients of gRPC")
		return
	}
	// In place of those of the server, which are for a request with one answer.
	end := time.Now().Add(maxCall)
	rc := http.NewResponseController(w)
	if err := errors.Join(rc.SetReadDeadline(end), rc.SetWriteDeadline(end)); err != nil {
		fail(w, http.StatusInternalServerError, attest.CodeInternal.Title()+" ("+string(attest.CodeInternal)+")")
		return
	}
	service.ServeHTTP(w, r)
}

// The page holds no script and no style: the policy of the answer allows neither.
var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>jurat</title></head><body>
<h1>jurat: {{.State}}</h1>{{if .Simulated}}<p><strong>SIMULATED</strong>: this proves nothing about hardware.</p>{{end}}
<table>{{range .Endpoints}}
<tr><td>{{if .Change}}<form method="post" action="{{.Path}}"><button>{{.Path}}</button></form>{{else}}<a href="{{.Path}}">{{.Path}}</a>{{end}}</td><td>{{.Help}}</td></tr>{{end}}
</table>
</body></html>
`))

func (a *api) index(w http.ResponseWriter, _ *http.Request) {
	type row struct {
		Path, Help string
		Change     bool
	}
	rows := make([]row, len(a.endpoints))
	for i, e := range a.endpoints {
		rows[i] = row{e.path, e.help, e.change}
	}
	simulated := a.source.ServerInfo != nil && a.source.ServerInfo().Simulated
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, struct {
		State     State
		Simulated bool
		Endpoints []row
	}{a.state(), simulated, rows})
}

func (a *api) list(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	for _, e := range a.endpoints {
		method := "GET  "
		if e.change {
			method = "POST "
		}
		b.WriteString(method + e.path + ": " + e.help + "\n")
	}
	writeText(w, b.String())
}

func (a *api) logging(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for k := range query {
		if k != "level" {
			fail(w, http.StatusBadRequest, "there is one level for the whole log: use ?level=")
			return
		}
	}
	if name := query.Get("level"); query.Has("level") {
		level, ok := map[string]slog.Level{
			"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn, "error": slog.LevelError,
		}[name]
		if !ok {
			fail(w, http.StatusBadRequest, "level is debug, info, warning or error")
			return
		}
		a.opts.Log.Info("level of the log set", "level", level.String())
		a.source.SetLogLevel(level)
	}
	text := "active loggers:\n"
	if a.source.LogLevel != nil {
		text += "  jurat: " + strings.ToLower(a.source.LogLevel().String()) + "\n"
	}
	writeText(w, text)
}

func (a *api) reopenLogs(w http.ResponseWriter, r *http.Request) {
	a.done(w, a.source.ReopenLogs(r.Context()))
}

func (a *api) drainListeners(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for k := range query {
		if k != "graceful" && k != "inboundonly" && k != "skip_exit" { // a misspelt skip_exit would end the process
			fail(w, http.StatusBadRequest, "there are ?graceful, ?inboundonly and ?skip_exit")
			return
		}
	}
	a.begin(w, Drain{query.Has("graceful"), query.Has("inboundonly"), query.Has("skip_exit")})
}

func (a *api) drain(w http.ResponseWriter, _ *http.Request) { a.begin(w, Drain{Graceful: true}) }

func (a *api) begin(w http.ResponseWriter, how Drain) {
	a.opts.Log.Info("draining was asked for", "graceful", how.Graceful, "inbound_only", how.InboundOnly)
	a.done(w, a.source.Drain(how))
}

func (a *api) done(w http.ResponseWriter, err error) {
	if err != nil {
		code := attest.CodeOf(err)
		a.opts.Log.Error("the admin API could not do what was asked", "code", string(code), "error", err.Error())
		fail(w, http.StatusInternalServerError, code.Title()+" ("+string(code)+"); see the log")
		return
	}
	writeText(w, "OK\n")
}

func (a *api) quit(w http.ResponseWriter, _ *http.Request) {
	a.opts.Log.Info("the end was asked for")
	writeText(w, "OK\n")
	_ = http.NewResponseController(w).Flush() // before the end begins
	a.source.Quit()
}
