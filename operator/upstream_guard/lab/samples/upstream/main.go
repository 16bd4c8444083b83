// Upstream is a small real HTTP server that fails on command, in the ways that gateways answer with
// 502, 503 and 504. Without a command it is healthy: an ordinary net/http server that says who it is.
//
// It serves on two ports: the app's own (8080), and one for commands (8081) that is always there,
// also while the app is starting or refuses connections.
//
//	GET  /state                               what it is doing, as JSON
//	POST /fault?mode=MODE[&seconds=N]         fail that way from now on, or for N seconds
//	POST /fault?mode=slow&delay_seconds=N     answer N seconds late
//	POST /crash                               end at once, as if killed
//
// Environment:
//
//	PORT, CONTROL_PORT         8080, 8081
//	START_DELAY_SECONDS        until the app listens; applies after each restart of the container
//	RESPONSE_DELAY_SECONDS     added to every answer but the health check's
//	LIE_SECONDS                so long after it listens, only the health check is answered: the rest is
//	                           reset, as by `lying-ready` (0)
//	LINGER_SECONDS             how long `stop-listening-on-sigterm` stays alive, and how long
//	                           `linger-on-sigterm` goes on as before (5)
//	KEEP_ALIVE                 0 ends each connection after one answer (1)
//	TLS                        1 speaks HTTPS on PORT, with a certificate of its own making (0)
//	IDLE_CLOSE_SECONDS         when `close-idle-early` closes an idle connection (0.05)
//	FAULT                      modes from the start, separated by commas
//	POD_NAME                   who it says it is; the host name unless given
//
// Called as `sleep SECONDS` it does just that, for preStop hooks: its image holds nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// exitKilled is what a shell reports for a process that was killed. A container's first process
// cannot send SIGKILL to itself (the kernel drops it), so a crash is an exit with this status.
const exitKilled = 137

type config struct {
	name          string
	port          int
	controlPort   int
	startDelay    time.Duration
	responseDelay time.Duration
	lie           time.Duration
	linger        time.Duration
	idleClose     time.Duration
	keepAlive     bool
	tls           bool
	faults        []string
}

// started is when the process began, for those who measure how long it takes to serve.
var started = time.Now()

func main() {
	if filepath.Base(os.Args[0]) == "sleep" {
		os.Exit(sleep(os.Args[1:]))
	}
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	cfg, err := readConfig(os.LookupEnv)
	if err != nil {
		log.Fatal(err)
	}
	state, err := newState(cfg)
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)

	control, err := net.Listen("tcp", fmt.Sprintf(":%d", cfg.controlPort))
	if err != nil {
		log.Fatal(err)
	}
	app, err := newApp(cfg, state)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(control, controlHandler(app))) }()
	go func() {
		time.Sleep(cfg.startDelay)
		app.begin()
	}()
	for range signals {
		obeySignal(cfg, app)
	}
}

// obeySignal does on SIGTERM what the current mode says. By default the process ends at once with
// connections open, as any Go program that does not handle the signal.
func obeySignal(cfg config, app *app) {
	mode := app.state.onSignal()
	log.Printf("SIGTERM: %s", mode)
	switch mode {
	case sigIgnore:
	case sigStopListening:
		app.closeListener()
		time.AfterFunc(cfg.linger, func() { os.Exit(0) })
	case sigLinger:
		time.AfterFunc(cfg.linger, func() { leave(app) })
	case sigGraceful:
		go leave(app)
	default:
		os.Exit(int(syscall.SIGTERM) + 128)
	}
}

// leave ends the process when the requests under way are answered.
func leave(app *app) {
	if err := app.shutdown(context.Background()); err != nil {
		log.Print(err)
	}
	os.Exit(0)
}

// sleep waits for the seconds given, and returns the exit status.
func sleep(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: sleep SECONDS")
		return 2
	}
	pause, err := duration(args[0], 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sleep:", err)
		return 2
	}
	time.Sleep(pause)
	return 0
}

func readConfig(lookup func(string) (string, bool)) (config, error) {
	var problems []error
	number := func(key string, fallback float64) float64 {
		text, ok := lookup(key)
		if !ok || text == "" {
			return fallback
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || value < 0 {
			problems = append(problems, fmt.Errorf("%s: %q is not a number from 0 up", key, text))
		}
		return value
	}
	cfg := config{
		port:          int(number("PORT", 8080)),
		controlPort:   int(number("CONTROL_PORT", 8081)),
		startDelay:    seconds(number("START_DELAY_SECONDS", 0)),
		responseDelay: seconds(number("RESPONSE_DELAY_SECONDS", 0)),
		lie:           seconds(number("LIE_SECONDS", 0)),
		linger:        seconds(number("LINGER_SECONDS", 5)),
		idleClose:     seconds(number("IDLE_CLOSE_SECONDS", 0.05)),
		keepAlive:     number("KEEP_ALIVE", 1) > 0,
		tls:           number("TLS", 0) > 0,
	}
	if text, _ := lookup("FAULT"); text != "" {
		cfg.faults = strings.Split(text, ",")
	}
	cfg.name, _ = lookup("POD_NAME")
	if cfg.name == "" {
		cfg.name, _ = os.Hostname()
	}
	return cfg, errors.Join(problems...)
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }
