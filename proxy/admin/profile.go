package admin

import (
	"io"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

// maxProfile bounds how long one profile takes.
const maxProfile = 2 * time.Minute

// profiling is what net/http/pprof has, without its registration at the default mux and without the command line.
func (a *api) profiling() []endpoint {
	const root = "/debug/pprof/"
	all := []endpoint{
		{root + "profile", false, "CPU profile (?seconds=30)", a.profile(pprof.StartCPUProfile, pprof.StopCPUProfile, 30*time.Second)},
		{root + "trace", false, "trace of the execution (?seconds=1)", a.profile(trace.Start, trace.Stop, time.Second)},
	}
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		all = append(all, endpoint{root + name, false, "profile of " + name + " (?debug=1 for text)", func(w http.ResponseWriter, r *http.Request) {
			debug, err := strconv.Atoi(or(r.URL.Query().Get("debug"), "0"))
			if err != nil || debug < 0 || debug > 2 {
				fail(w, http.StatusBadRequest, "debug is 0, 1 or 2")
				return
			}
			kind := "application/octet-stream"
			if debug > 0 {
				kind = "text/plain; charset=utf-8"
			}
			w.Header().Set("Content-Type", kind)
			_ = pprof.Lookup(name).WriteTo(w, debug)
		}})
	}
	return all
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// profile takes one of a stretch of time.
func (a *api) profile(start func(io.Writer) error, stop func(), usual time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		took := usual
		if s := r.URL.Query().Get("seconds"); s != "" {
			n, _ := strconv.ParseUint(s, 10, 16) // 0 for what is no number
			if took = time.Duration(n) * time.Second; took == 0 || took > maxProfile {
				fail(w, http.StatusBadRequest, "seconds is 1 to "+strconv.Itoa(int(maxProfile/time.Second)))
				return
			}
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(took + writeTimeout))
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := start(w); err != nil {
			fail(w, http.StatusConflict, "another profile is being taken")
			return
		}
		defer stop()
		timer := time.NewTimer(took)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
}
