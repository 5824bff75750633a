package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// addresses are the first line of the backend.
type addresses struct{ HTTP, TCP string }

const chunk = 256 << 10 // of bulk

// backend serves until its input ends. It does the least that answers, so that it's never what limits.
func backend() error {
	var a addresses
	var err error
	if a.HTTP, err = listen(serveHTTP); err != nil {
		return err
	}
	if a.TCP, err = listen(serveTCP); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func listen(serve func(net.Conn)) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String(), nil
}

// serveTCP reads an order, 'S' or 'R' and a number: it sends so many bytes, or receives them and says so with one.
func serveTCP(conn net.Conn) {
	var order [9]byte
	if _, err := io.ReadFull(conn, order[:]); err != nil {
		return
	}
	n := int64(binary.BigEndian.Uint64(order[1:]))
	buf := make([]byte, chunk)
	if order[0] == 'S' {
		_ = send(conn, n, buf)
		return
	}
	if receive(conn, n, buf) == nil {
		_, _ = conn.Write(order[:1])
	}
}

func send(w io.Writer, n int64, buf []byte) error {
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}

func receive(r io.Reader, n int64, buf []byte) error {
	for n > 0 {
		got, err := r.Read(buf[:min(n, int64(len(buf)))])
		if n -= int64(got); err != nil && n > 0 {
			return err
		}
	}
	return nil
}

func answer(size int64) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", size)
}

var (
	answer1K   = append(answer(1000), make([]byte, 1000)...)
	answer100K = append(answer(100_000), make([]byte, 100_000)...)
)

// serveHTTP answers /1k, /100k and /bytes/N in HTTP/1.1; in HTTP/2 with prior knowledge, see serveH2.
func serveHTTP(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 16<<10)
	if start, err := r.Peek(3); err != nil {
		return
	} else if string(start) == "PRI" {
		serveH2(conn, r)
		return
	}
	for {
		path, length, err := readRequest(r)
		if err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, r, length); err != nil {
			return
		}
		switch {
		case path == "/1k":
			_, err = conn.Write(answer1K)
		case path == "/100k":
			_, err = conn.Write(answer100K)
		default:
			rest, _ := strings.CutPrefix(path, "/bytes/")
			n, bad := strconv.ParseInt(rest, 10, 64)
			if bad != nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				return
			}
			if _, err = conn.Write(answer(n)); err == nil {
				err = send(conn, n, make([]byte, chunk))
			}
		}
		if err != nil {
			return
		}
	}
}

// readRequest reads the head of a request: its path, and how long its body is.
func readRequest(r *bufio.Reader) (path string, length int64, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", 0, err
	}
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return "", 0, fmt.Errorf("no request: %.40q", line)
	}
	path = string(fields[1])
	length, err = readFields(r)
	return path, max(length, 0), err
}

// readFields reads header fields up to the empty line, and answers the length of the body; -1 where none is said.
func readFields(r *bufio.Reader) (length int64, err error) {
	length = -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return length, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return length, nil
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(line[len(name):])), 10, 64); err != nil {
				return length, err
			}
		}
	}
}
