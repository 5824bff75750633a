package eventlog

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

func (a Algorithm) hash() hash.Hash {
	switch a {
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	return nil
}

// Replay answers the values that registers have after all events of the log, in the bank of one algorithm. A register
// that no event was extended into is not in the answer; nothing is when the log has no such bank.
//
// Registers begin with zeros, but register 0 with the locality that started the measurements (Firmware Profile chapter
// 3.3.3). What a TPM does beyond that, resetting registers while the system runs, no log tells.
func (l *Log) Replay(a Algorithm) map[uint32][]byte {
	h := a.hash()
	registers := map[uint32][]byte{}
	for i := range l.Events {
		e := &l.Events[i]
		digest := e.Digest(a)
		if h == nil || digest == nil || e.Type == NoAction {
			continue
		}
		value := registers[e.Index]
		if value == nil {
			value = make([]byte, a.Size())
			if e.Index == 0 {
				value[len(value)-1] = l.Locality
			}
		}
		h.Reset()
		h.Write(value)
		h.Write(digest)
		registers[e.Index] = h.Sum(value[:0])
	}
	return registers
}
