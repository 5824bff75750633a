package attest

import (
	"strings"
	"testing"
	"time"
)

// How errors show what was found.
func TestShown(t *testing.T) {
	kiritimati := time.FixedZone("", 14*3600)
	for _, c := range []struct{ name, got, want string }{
		{"text", Quote("a name"), `"a name"`},
		{"what ends a line or a colour", Quote("a\n\x1b[0m\"\u202e"), `"a\n\x1b[0m\"\u202e"`},
		{"what is no text", Quote("\xff\x00"), `"\xff\x00"`},
		{"64 characters", Quote(strings.Repeat("é", 64)), `"` + strings.Repeat("é", 64) + `"`},
		{"more", Quote(strings.Repeat("é", 65)), `"` + strings.Repeat("é", 64) + `"`},
		{"a day", Day(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)), "2026-11-23"},
		{"a day that is over elsewhere", Day(time.Date(2026, 11, 23, 12, 0, 0, 0, kiritimati)), "2026-11-22"},
		{"no bytes", Abbreviate(nil), ""},
		{"10 bytes", Abbreviate([]byte("0123456789")), "30313233343536373839"},
		{"11 bytes", Abbreviate([]byte("0123456789a")), "30313233…37383961"},
		{"a fingerprint", Fingerprint([]byte("abc")), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"a refusal", Refuse(CodeReportData, "a.check", "x", "y").Error(), CodeReportData.Title() + ": got x, want y (" + string(CodeReportData) + ")"},
		{"its check", Refuse(CodeReportData, "a.check", "x", "y").Check, "a.check"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestAllZero(t *testing.T) {
	for b, want := range map[string]bool{"": true, "\x00": true, "\x00\x00\x00": true, "\x01\x00": false, "\x00\x00\x80": false} {
		if AllZero([]byte(b)) != want {
			t.Errorf("%x: %v", b, !want)
		}
	}
}
