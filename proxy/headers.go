package proxy

import "net/http"

// strip removes every header that match names.
func strip(h http.Header, match func(string) bool) {
	for name := range h {
		if match(name) {
			delete(h, name)
		}
	}
}
