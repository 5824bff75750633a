package e2e

import (
	"bufio"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// interopCases are gRPC's own, but for those that need the credentials of a cloud, and pick_first_unary, which needs servers
// that give their names. What each asks for is told at
// https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
	"orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
}

// TestInteropGRPC has gRPC's client talk to gRPC's server, neither of which knows of what is between them: over attested TLS,
// which the client speaks itself and jurat exec has it trust, and in plain from one sidecar to the other.
func TestInteropGRPC(t *testing.T) {
	l := newLab(t)
	client, service := l.interop()
	policy := l.symmetricPolicy()
	for _, scheme := range []string{"", "h2c://"} {
		to := scheme + service
		alone := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", to)
		front, behind := l.pair(to)
		for _, way := range []struct {
			name   string
			server *process
			addr   string
			run    []string
		}{
			{"exec, serve", alone, alone.address(), []string{binary, "exec", "-p", policy, "--to", alone.addr, "--", client, "--use_tls"}},
			{"forward, serve", behind, front, []string{client}},
		} {
			for _, c := range interopCases {
				t.Run(way.name+", "+scheme+"service/"+c, func(t *testing.T) {
					host, port, err := net.SplitHostPort(way.addr)
					if err != nil {
						t.Fatal(err)
					}
					args := append(way.run, "--server_host", host, "--server_port", port, "--test_case", c)
					switch {
					case strings.HasPrefix(c, "orca"): // the client has to take note of the load that the server reports
						args = append(args, `--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
					case strings.HasSuffix(c, "soak"):
						args = append(args, "--soak_iterations", "100", "--soak_num_threads", "4",
							"--soak_per_iteration_max_acceptable_latency_ms", "20000", "--soak_overall_timeout_seconds", "60")
					}
					if o := (&lab{t, l.dir}).run(args[0], args[1:]...); o.code != 0 {
						t.Errorf("exit %d\n%s%s", o.code, o.stdout, o.stderr)
					}
				})
			}
			if totals := way.server.stop(); totals.number("requests") < int64(len(interopCases)) {
				t.Errorf("%s: the calls went past the proxy: %v", way.name, totals)
			}
		}
	}
}

// interop builds gRPC's programs and starts the server. They know of no library of ours, so that nothing is shared.
func (l *lab) interop() (client, service string) {
	l.Helper()
	const programs = "google.golang.org/grpc/interop/"
	if o := l.run("go", "build", "-C", "../tools", "-o", l.dir, programs+"client", programs+"server"); o.code != 0 {
		l.Fatal(o.stderr)
	}
	cmd := exec.Command(l.path("server"), "--port", "0")
	cmd.Env = append(l.env(), "GRPC_GO_LOG_SEVERITY_LEVEL=info") // it says where it listens
	stderr, err := cmd.StderrPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	port := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, addr, ok := strings.Cut(lines.Text(), "interop server listening on "); ok {
				_, at, _ := net.SplitHostPort(addr)
				port <- at
			}
		}
	}()
	l.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	select {
	case at := <-port:
		service = net.JoinHostPort("127.0.0.1", at)
	case <-done:
		l.Fatal("gRPC's server did not start")
	case <-time.After(patience):
		l.Fatal("gRPC's server does not listen")
	}
	return l.path("client"), service
}
