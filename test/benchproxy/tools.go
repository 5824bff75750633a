package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// seconds is the span as wrk and h2load take it.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second).Seconds())))
}

// byName is an address on loopback with the name that the certificate of all is for: wrk and h2load ask for it, and jurat, which has
// one with evidence too, shows that of the others.
func byName(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort("localhost", port)
}

// wrk loads 64 connections of HTTP/1.1, and answers how many requests that were.
func (b *bench) wrk(ctx context.Context, addr, path string) (float64, error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c64", "-d"+seconds(b.span)+"s", "https://"+byName(addr)+path).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %.300s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in`)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Socket errors|Non-2xx).*$`)
)

func parseWrk(out string) (float64, error) {
	if e := wrkErrors.FindString(out); e != "" {
		return 0, fmt.Errorf("wrk: %s", e)
	}
	m := wrkRequests.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk: %.300q", out)
	}
	return strconv.ParseFloat(m[1], 64)
}

// h2load loads 10 connections of HTTP/2 with 50 streams each.
func (b *bench) h2load(ctx context.Context, addr, path string, more ...string) (float64, error) {
	args := append([]string{"-D", seconds(b.span), "-c10", "-m50", "-t1"}, more...)
	out, err := exec.CommandContext(ctx, "h2load", append(args, "https://"+byName(addr)+path)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("h2load: %w: %.300s", err, out)
	}
	return parseH2load(string(out))
}

var (
	h2loadRequests = regexp.MustCompile(`(?m)^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadProtocol = regexp.MustCompile(`(?m)^Application protocol: (\S+)`)
)

func parseH2load(out string) (float64, error) {
	m, p := h2loadRequests.FindStringSubmatch(out), h2loadProtocol.FindStringSubmatch(out)
	if m == nil || p == nil {
		return 0, fmt.Errorf("h2load: %.600q", out)
	}
	if m[2] != "0" || m[3] != "0" || m[4] != "0" || p[1] != "h2" {
		return 0, fmt.Errorf("h2load: %s over %s", m[0], p[1])
	}
	return strconv.ParseFloat(m[1], 64)
}
