package collect

import (
	"bytes"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func FuzzOpenEnclave(f *testing.F) {
	q := unsigned(wanted)
	f.Add(openEnclave(1, 2, uint64(len(q)), q), wanted[:])
	f.Add(openEnclave(1, 2, 1<<63, q), wanted[:])
	f.Add(openEnclave(1, 1, uint64(len(q)), q)[:20], []byte{})
	f.Fuzz(func(t *testing.T, report, raw []byte) {
		var data attest.ReportData
		copy(data[:], raw)
		ev, err := OpenEnclave(report, data)
		if err != nil {
			return
		}
		if !bytes.Equal(ev.Raw, report[openEnclaveHeader:]) || !bytes.Equal(ev.Raw[dataAt:dataAt+64], data[:]) || len(ev.Raw) > maxQuote {
			t.Fatal("accepted what it must not, or changed it")
		}
	})
}
