// Command benchproxy measures jurat beside other proxies in one run: the same backend in plain HTTP, the same certificate, TLS 1.3 with
// AES-128-GCM; the proxy on one core, load and backend on another. They take turns, or work at the same time (-at-once). What counts is
// the CPU time of the proxy, all of its processes together, for a unit of work; of what a clock on the wall says, only ratios within the
// run. It fails when a goal is missed.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	serving = flag.Bool("backend", false, "be the backend (for the program itself)")
	only    = flag.String("works", "", "do these `WORKS` only: "+strings.Join(workNames(), ","))
	with    = flag.String("peers", "", "measure these `PEERS` only: "+strings.Join(kindNames(), ","))
	jurat   = flag.String("jurat", "", "the `PROGRAM` that is measured as jurat (default: beside this one)")
	before  = flag.String("before", "", "another `PROGRAM` of the same kind, such as an earlier build, that takes part too")
	rounds  = flag.Int("rounds", 3, "rounds, each of which starts all programs afresh")
	turns   = flag.Int("turns", 4, "turns of all at every work in a round: ratios are of what was measured in the same turn")
	atOnce  = flag.Bool("at-once", false, "all work at the same time, on the same core, instead of in turns: what disturbs one disturbs all")
	span    = flag.Duration("span", time.Second, "time for each measurement, in whole seconds")
	bulkGB  = flag.Float64("gb", 1, "gigabytes of bulk")
	idles   = flag.Int("idle", 5000, "idle connections")
	rate    = flag.Int("rate", 2000, "requests per second where the rate is fixed")
	steers  = flag.String("congestion", "", "measure in a network of its own, in which all connections begin with this congestion control, such as `cubic`; as root")
	inside  = flag.Bool("isolated", false, "that network is this one (for the program itself)")
	asJSON  = flag.Bool("json", false, "write JSON, with every sample, instead of a table")
	output  = flag.String("o", "", "also write the tables into this Markdown `FILE`")
)

func workNames() (names []string) {
	for _, w := range works() {
		names = append(names, w.name)
	}
	return names
}

func kindNames() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("benchproxy: ")
	flag.Parse()
	if *serving {
		if err := backend(); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	switch {
	case errors.Is(err, errTold):
		os.Exit(1)
	case err != nil:
		log.Fatal(err)
	}
}

// choose picks those of all that a flag names, in the order of all.
func choose(list string, all []string) ([]string, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, w := range wanted {
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("%q is none of %s", w, strings.Join(all, ","))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !slices.Contains(wanted, s) }), nil
}

// bench is one run.
type bench struct {
	dir     string
	tee     string
	span    time.Duration
	bytes   int64
	idles   int
	rate    int
	core    int // of the proxies
	backend addresses
	setup   setup
	kinds   []kind
	paths   map[string]string // of programs
	works   []work
	mu      sync.Mutex
	report  *report
	failed  int // measurements of jurat
}

func run(ctx context.Context) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("no argument is known: %q", flag.Arg(0))
	}
	if *rounds < 1 || *turns < 1 || *idles < 1 || *rate < 1 || *bulkGB <= 0 {
		return errors.New("what is counted has to be at least one")
	}
	switch {
	case *steers != "" && !*inside:
		return isolate(ctx)
	case *inside:
		if err := furnish(*steers); err != nil {
			return err
		}
	}
	b := &bench{span: *span, bytes: int64(*bulkGB * 1e9), idles: *idles, rate: *rate, paths: map[string]string{}}
	all, err := cores()
	if err != nil {
		return err
	}
	if len(all) < 2 {
		return errors.New("needs two cores, one for the proxy and one for the load")
	}
	b.core = all[1]
	b.report = &report{
		Date: time.Now().UTC().Format("2006-01-02"), Command: command(), Machine: machine(len(all)) + ", congestion control " + congestionHere(), Rounds: *rounds,
		Versions: map[string]string{"go": runtime.Version()}, Samples: results{},
	}
	manner := "in turns, ratios of what was measured in the same one"
	if *atOnce {
		manner = "in which all worked at the same time, ratios of what they took then"
	}
	b.report.Setting = fmt.Sprintf("medians of %d rounds of %d measurements %s; %s each, bulk %g GB, %d idle connections, fixed rate %d/s", *rounds, *turns, manner, *span, *bulkGB, *idles, *rate)
	if err := b.pick(); err != nil {
		return err
	}
	if err := stayOn(all[0]); err != nil {
		return err
	}
	runtime.GOMAXPROCS(4) // a thread that sleeps shall not keep the others from running
	if b.setup.Files, err = manyFiles(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "benchproxy"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.tee = "sim:snp:genoa,dir=" + b.dir
	b.setup.Dir, b.setup.TEE, b.setup.Root = b.dir, b.tee, os.Getuid() == 0
	if b.setup.Cert, b.setup.Key, b.setup.Pair, err = certificate(b.dir); err != nil {
		return err
	}
	if err := os.WriteFile(b.message(), message(), 0o600); err != nil {
		return err
	}
	all = all[:2]
	begin, before := time.Now(), machineCPU(all)-ourCPU()
	if err := b.measureAll(ctx); err != nil {
		return err
	}
	others := max(machineCPU(all)-ourCPU()-before, 0)
	share := 50 * others.Seconds() / time.Since(begin).Seconds()
	b.report.Others = fmt.Sprintf("others used about %.0f %% of the two cores meanwhile", share)
	if share > 10 {
		b.note("the machine was not ours alone: latencies and rates say little, CPU time is good for coarse comparisons")
	}
	return b.finish()
}

// measureAll does all rounds.
func (b *bench) measureAll(ctx context.Context) error {
	service, err := startBackend()
	if err != nil {
		return err
	}
	defer service.stop()
	b.backend = service.addresses
	b.setup.HTTP, b.setup.TCP = service.HTTP, service.TCP
	for n := range *rounds {
		if err := b.round(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) finish() error {
	r := b.report
	r.summarise()
	if *output != "" {
		f, err := os.Create(*output)
		if err != nil {
			return err
		}
		r.write(f, true)
		if err := f.Close(); err != nil {
			return err
		}
	}
	if *asJSON {
		if err := r.json(os.Stdout); err != nil {
			return err
		}
	} else {
		r.write(os.Stdout, false)
	}
	if n := r.missed(); n > 0 || b.failed > 0 {
		return fmt.Errorf("%d goals missed, %d measurements of jurat failed", n, b.failed)
	}
	return nil
}

// note is for the reader of the report too.
func (b *bench) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	b.report.Notes = append(b.report.Notes, s)
	log.Print(s)
}

// pick finds the programs that were asked for. Who is absent is left out, visibly.
func (b *bench) pick() error {
	names, err := choose(*only, workNames())
	if err != nil {
		return err
	}
	for _, w := range works() {
		if slices.Contains(names, w.name) {
			b.works = append(b.works, w)
		}
	}
	if names, err = choose(*with, kindNames()); err != nil {
		return err
	}
	for _, k := range kinds() {
		if !slices.Contains(names, k.name) && k.name != earlier {
			continue
		}
		path, err := find(k.program)
		switch {
		case k.name == product && *jurat != "":
			path, err = filepath.Abs(*jurat)
		case k.name == earlier:
			path, err = filepath.Abs(*before)
		}
		if err != nil {
			b.note("%s is absent, and left out", k.name)
			continue
		}
		b.kinds, b.paths[k.name] = append(b.kinds, k), path
		b.report.Peers = append(b.report.Peers, k.name)
		b.report.Versions[k.name] = version(path, k.version...)
	}
	for tool, args := range map[string]string{"wrk": "-v", "h2load": "--version", "taskset": "--version"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			return fmt.Errorf("%s is absent (test/setup.sh fetches it): %w", tool, err)
		}
		if tool != "taskset" {
			b.report.Versions[tool] = version(path, args)
		}
	}
	return nil
}

// round starts all peers afresh, and lets them take turns at every work.
func (b *bench) round(ctx context.Context, n int) error {
	var peers []*peer
	defer func() {
		for _, p := range peers {
			p.stop()
		}
	}()
	for _, k := range b.kinds {
		p, err := start(ctx, k, b.paths[k.name], b.core, b.setup)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			b.note("round %d: %v", n+1, err)
			if k.name == product {
				b.failed++
			}
			continue
		}
		peers = append(peers, p)
		leaf, err := probe(ctx, p)
		if err != nil {
			b.note("round %d: %s: %v", n+1, p.name, err)
		}
		if n == 0 {
			log.Printf("%s %s, certificate of %d bytes", p.name, b.report.Versions[p.name], leaf)
		}
	}
	warm := false
	for _, w := range b.works {
		if w.once && n > 0 {
			continue
		}
		if w.name != workIdle && !warm {
			warm = true
			for _, p := range peers {
				if err := b.warm(ctx, p); err != nil && ctx.Err() == nil {
					b.note("round %d: %s: %v", n+1, p.name, err)
				}
			}
		}
		for t := range *turns {
			if w.once && t > 0 {
				break
			}
			b.turn(ctx, n**turns+t, w, peers)
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
		}
	}
	return nil
}

// turn has all peers do a work once, another one first each time. It counts turns over all rounds.
func (b *bench) turn(ctx context.Context, n int, w work, peers []*peer) {
	if w.direct {
		b.measure(ctx, n, w, nil)
	}
	var all sync.WaitGroup
	defer all.Wait()
	for i := range peers {
		p := peers[(n+i)%len(peers)]
		switch {
		case ctx.Err() != nil, w.own && p.name != product, w.tcp && !p.tcp():
		case *atOnce:
			all.Go(func() { b.measure(ctx, n, w, p) })
		default:
			b.measure(ctx, n, w, p)
		}
	}
}

// measure does one work with one peer, or with the backend itself where it's nil.
func (b *bench) measure(ctx context.Context, n int, w work, p *peer) {
	name := direct
	if p != nil {
		name = p.name
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := w.run(b, limited, p)
	if ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	if err != nil {
		b.note("turn %d: %s, %s: %v", n+1, w.name, name, err)
		if name == product {
			b.failed++
		}
	}
	b.report.Samples.add(w.name, name, n, s)
	b.mu.Unlock()
	var said []string
	for _, metric := range []string{"cpu", "plain", "busy", "pss", "p50", "p99"} {
		if v, ok := s[metric]; ok {
			said = append(said, fmt.Sprintf("%s %.2f", metric, v))
		}
	}
	log.Printf("turn %d/%d  %-12s %-8s %s", n+1, *rounds**turns, w.name, name, strings.Join(said, ", "))
	if p != nil {
		p.quiet(ctx)
	}
}

// command is how we were called, without where we are.
func command() string {
	args := []string{"bin/" + filepath.Base(os.Args[0])}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "isolated" {
			return
		}
		v := f.Value.String()
		if filepath.IsAbs(v) {
			v = filepath.Base(v)
		}
		args = append(args, "-"+f.Name+"="+v)
	})
	return strings.Join(args, " ")
}

// machine names this one: processor, cores that we may use, kernel.
func machine(cores int) string {
	model, kernel := "unknown processor", "unknown"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(raw))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s", model, cores, kernel)
}
