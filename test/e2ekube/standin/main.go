// Command standin stands in for the image of Postgres where no registry can be
// reached: one static program under the names that deploy/k8s calls, which speaks
// lines instead of SQL. It knows nothing of Culvert.
//
//	postgres     answers each line with the same line, on 127.0.0.1:5432
//	pg_isready   ends with 0 when postgres accepts connections
//	psql         makes one request and ends
//	sh           makes requests all the time, and says each second how many have failed
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	address = "127.0.0.1:5432"
	pause   = 50 * time.Millisecond // between two requests of one worker
	late    = 3 * time.Second       // for which the app works on when it is to end
	patient = 30 * time.Second      // for one answer; longer than any route takes to be found
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	switch name := filepath.Base(os.Args[0]); name {
	case "postgres":
		err = serve(ctx)
	case "pg_isready":
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", address, time.Second); err == nil {
			err = conn.Close()
		}
	case "psql":
		err = once("report")
	case "sh":
		err = load(ctx)
	default:
		err = fmt.Errorf("nothing is called %s here", name)
	}
	if err != nil {
		fmt.Println("standin:", err)
		os.Exit(1)
	}
}

// serve answers lines until ctx ends.
func serve(ctx context.Context) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// once makes a connection and one request on it, and ends it cleanly.
func once(line string) error {
	conn, err := net.DialTimeout("tcp", address, patient)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := ask(conn, bufio.NewReader(conn), line); err != nil {
		return err
	}
	return conn.(*net.TCPConn).CloseWrite()
}

// ask sends a line, which has to come back.
func ask(conn net.Conn, r *bufio.Reader, line string) error {
	if err := conn.SetDeadline(time.Now().Add(patient)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return err
	}
	switch got, err := r.ReadString('\n'); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the connection ended, want %q", line)
	case err != nil:
		return err
	case got != line+"\n":
		return fmt.Errorf("got %q, want %q", got, line)
	}
	return nil
}

// load makes requests until ctx has ended for a while: one worker on a connection
// that it keeps, two with a new one for each request.
func load(ctx context.Context) error {
	var requests, failures atomic.Int64
	count := func(err error) {
		requests.Add(1)
		if err != nil {
			fmt.Println("failed:", err)
			failures.Add(1)
		}
	}
	over, end := context.WithCancel(context.Background())
	defer end()
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for i := 0; over.Err() == nil; i++ {
				count(once(fmt.Sprint("new ", i)))
				time.Sleep(pause)
			}
		})
	}
	workers.Go(func() { kept(over, count) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	ending := ctx.Done()
	for {
		select {
		case <-tick.C:
			fmt.Printf("requests=%d failures=%d\n", requests.Load(), failures.Load())
		case <-ending:
			fmt.Println("ending")
			ending = nil
			time.AfterFunc(late, end)
		case <-over.Done():
			workers.Wait()
			fmt.Printf("ended requests=%d failures=%d\n", requests.Load(), failures.Load())
			return nil
		}
	}
}

// kept makes requests on one connection, and another one only when that has failed.
func kept(ctx context.Context, count func(error)) {
	for ctx.Err() == nil {
		conn, err := net.DialTimeout("tcp", address, patient)
		if err != nil {
			count(err)
			time.Sleep(pause)
			continue
		}
		r := bufio.NewReader(conn)
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			err = ask(conn, r, fmt.Sprint("kept ", i))
			count(err)
			time.Sleep(pause)
		}
		conn.Close()
	}
}
