// Package wiretap stands between the two ends of a session and changes the frames inside their TLS connection, for tests:
// with the traffic keys of both ends, or as an end of TLS itself.
package wiretap

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// Directions, by the label of their secret in a key log.
const (
	FromClient = "CLIENT_TRAFFIC_SECRET_0"
	FromServer = "SERVER_TRAFFIC_SECRET_0"
)

// Keys is a key log, for tls.Config.KeyLogWriter, of one connection.
type Keys struct {
	mu      sync.Mutex
	secrets map[string][]byte
}

// Write takes one line of the log.
func (k *Keys) Write(line []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := strings.Fields(string(line)); len(f) == 3 {
		secret, err := hex.DecodeString(f[2])
		if err != nil {
			return 0, err
		}
		if k.secrets == nil {
			k.secrets = map[string][]byte{}
		}
		k.secrets[f[0]] = secret
	}
	return len(line), nil
}

// protection of the records of one direction.
type protection struct {
	aead cipher.AEAD
	iv   []byte
}

// protecting finds what protects the first record of application data of a direction, among the cipher suites that
// crypto/tls chooses by itself; nil when record is not that.
func (k *Keys) protecting(label string, record []byte) *protection {
	k.mu.Lock()
	secret := k.secrets[label]
	k.mu.Unlock()
	if secret == nil {
		return nil
	}
	for size, make := range map[int]func([]byte) (cipher.AEAD, error){16: gcm, chacha20poly1305.KeySize: chacha20poly1305.New} {
		aead, err := make(expand(secret, "key", size))
		if err != nil {
			panic(err) // of a key of the wrong size
		}
		p := &protection{aead, expand(secret, "iv", 12)}
		if _, _, ok := p.open(0, record); ok {
			return p
		}
	}
	return nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// expand is HKDF-Expand-Label (RFC 8446 section 7.1) without a context.
func expand(secret []byte, label string, size int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), size)
	if err != nil {
		panic(err) // of a size that is too large
	}
	return out
}

func (p *protection) nonce(seq uint64) []byte {
	n := bytes.Clone(p.iv)
	for i := range 8 {
		n[4+i] ^= byte(seq >> (56 - 8*i))
	}
	return n
}

func (p *protection) open(seq uint64, record []byte) (content []byte, kind byte, ok bool) {
	plain, err := p.aead.Open(nil, p.nonce(seq), record[5:], record[:5])
	if err != nil {
		return nil, 0, false
	}
	plain = bytes.TrimRight(plain, "\x00")
	if len(plain) == 0 {
		return nil, 0, false
	}
	return plain[:len(plain)-1], plain[len(plain)-1], true
}

func (p *protection) seal(seq uint64, content []byte, kind byte) []byte {
	record := []byte{applicationData, 3, 3}
	record = binary.BigEndian.AppendUint16(record, uint16(len(content)+1+p.aead.Overhead()))
	return p.aead.Seal(record, p.nonce(seq), append(bytes.Clone(content), kind), record)
}

const applicationData = 23

// Stream is one direction of a session.
type Stream struct {
	// Change answers what is to be passed on in place of frame number i, which is whole.
	Change func(i int, frame []byte) [][]byte
	Sent   [][]byte // frames as they came
	Passed [][]byte // what was passed on

	pending []byte
}

// Records passes TLS records on, with the frames inside them changed, until either end is done. dir says which way it is.
func (s *Stream) Records(from, to net.Conn, keys *Keys, dir string) {
	defer shut(to)
	var p *protection
	var in, out uint64
	send := func(content []byte, kind byte) bool {
		_, err := to.Write(p.seal(out, content, kind))
		out++
		return err == nil
	}
	for {
		record, err := readRecord(from)
		if err != nil {
			return
		}
		if p == nil && record[0] == applicationData {
			p = keys.protecting(dir, record)
		}
		if p == nil { // of the handshake
			if _, err := to.Write(record); err != nil {
				return
			}
			continue
		}
		content, kind, ok := p.open(in, record)
		if in++; !ok {
			return
		}
		pass := func(b []byte) bool { return send(b, kind) }
		if kind != applicationData {
			ok = pass(content)
		} else {
			ok = s.feed(content, pass)
		}
		if !ok {
			return
		}
	}
}

func readRecord(from io.Reader) ([]byte, error) {
	record := make([]byte, 5)
	if _, err := io.ReadFull(from, record); err != nil {
		return nil, err
	}
	record = append(record, make([]byte, binary.BigEndian.Uint16(record[3:]))...)
	_, err := io.ReadFull(from, record[5:])
	return record, err
}

// Frames passes on what comes over from, with its frames changed, until either end is done.
func (s *Stream) Frames(from, to net.Conn) {
	defer shut(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		ok := s.feed(buf[:n], func(b []byte) bool {
			_, err := to.Write(b)
			return err == nil
		})
		if err != nil || !ok {
			return
		}
	}
}

func shut(to net.Conn) {
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// feed takes bytes of the stream and passes on what Change makes of each frame that they complete.
func (s *Stream) feed(content []byte, pass func([]byte) bool) bool {
	s.pending = append(s.pending, content...)
	for len(s.pending) >= 4 {
		size := 4 + int(binary.BigEndian.Uint32(s.pending)&0xffffff)
		if len(s.pending) < size {
			break
		}
		frame := bytes.Clone(s.pending[:size])
		s.pending = s.pending[size:]
		s.Sent = append(s.Sent, frame)
		for _, b := range s.Change(len(s.Sent)-1, frame) {
			s.Passed = append(s.Passed, b)
			if len(b) > 0 && !pass(b) {
				return false
			}
		}
	}
	return true
}
