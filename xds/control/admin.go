package control

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/jurat-tls/jurat/xds/resource"
)

// Admin answers questions about a Control, in JSON. It asks nobody who they are: it belongs on a unix socket that its owner alone can
// open.
//
//	GET  /status
//	GET  /history?n=20
//	POST /plan          Files as JSON: what taking them would do
//	POST /reload        takes the directory now; 422 with what is wrong with it
func (c *Control) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, c.Status()) })
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil || n < 1 {
			n = 20
		}
		all, err := History(c.store.dir, min(n, 10_000))
		if err != nil {
			reply(w, http.StatusInternalServerError, problemsOf(err))
			return
		}
		reply(w, http.StatusOK, all)
	})
	mux.HandleFunc("POST /plan", func(w http.ResponseWriter, r *http.Request) {
		var files Files
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*MaxBytes))
		if err == nil {
			err = json.Unmarshal(raw, &files)
		}
		if err != nil {
			http.Error(w, "the files are not understood", http.StatusBadRequest)
			return
		}
		reply(w, http.StatusOK, c.Plan(files))
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Reload(resource.Printable(r.Header.Get("Jurat-Who"), 128) + ", by the admin socket"); err != nil {
			reply(w, http.StatusUnprocessableEntity, problemsOf(err))
			return
		}
		reply(w, http.StatusOK, map[string]uint64{"serial": c.state.Load().serial})
	})
	return mux
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}
