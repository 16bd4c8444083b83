package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

// crashDelay lets the answer to POST /crash leave the machine first.
const crashDelay = 20 * time.Millisecond

func controlHandler(a *app) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { report(w, a) })
	mux.HandleFunc("POST /fault", func(w http.ResponseWriter, r *http.Request) {
		if err := takeFault(a.state, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		report(w, a)
	})
	mux.HandleFunc("POST /crash", func(w http.ResponseWriter, _ *http.Request) {
		log.Print("crash")
		time.AfterFunc(crashDelay, func() { os.Exit(exitKilled) })
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

func takeFault(s *state, r *http.Request) error {
	query := r.URL.Query()
	lasting, err := duration(query.Get("seconds"), 0)
	if err != nil {
		return fmt.Errorf("seconds: %w", err)
	}
	delay, err := duration(query.Get("delay_seconds"), time.Second)
	if err != nil {
		return fmt.Errorf("delay_seconds: %w", err)
	}
	mode := query.Get("mode")
	if err := s.set(mode, delay, lasting); err != nil {
		return err
	}
	log.Printf("mode %s", mode)
	return nil
}

func duration(text string, fallback time.Duration) (time.Duration, error) {
	if text == "" {
		return fallback, nil
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		return 0, fmt.Errorf("%q is not a number from 0 up", text)
	}
	return seconds(value), nil
}

func report(w http.ResponseWriter, a *app) {
	fault, _, _ := a.state.current()
	w.Header().Set("Content-Type", "application/json")
	// An error here is a client that went away.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"pod":       a.cfg.name,
		"mode":      fault,
		"sigterm":   a.state.onSignal(),
		"listening": a.listening(),
		"requests":  a.requests.Load(),
		"started":   float64(started.UnixMicro()) / 1e6,
		"serving":   float64(a.serving.Load()) / 1e6,
	})
}
