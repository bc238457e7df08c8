// SPDX-License-Identifier: Apache-2.0

// Goroutines whose innermost function has no frame, the way to which leads through a closure, an interface and a
// recursion that makes the stack grow (and move); and work on the system stack (the collector), which ends there.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var sink uint64
var kept [64][]byte

//go:noinline
func bareLeaf(units uint64) uint64 {
	x := units ^ 0x1234567
	for i := uint64(0); i < units; i++ {
		x = (x ^ x>>29) * 6364136223846793005
	}
	return x
}

//go:noinline
func bareMid(units uint64) uint64 { return bareLeaf(units) + 1 }

//go:noinline
func growing(units uint64, n int) uint64 {
	var room [256]byte
	room[n&255] = byte(n)
	if n > 1 {
		return growing(units, n-1) + uint64(room[units&255])
	}
	return bareMid(units) + uint64(room[units&255])
}

type walker interface{ walk(units uint64) uint64 }
type step struct{ f func(uint64) uint64 }

//go:noinline
func (s *step) walk(units uint64) uint64 { return s.f(units) + 1 }

//go:noinline
func rounds(until time.Time, w walker) {
	for i := 0; time.Now().Before(until); i++ {
		sink += w.walk(15000)
		sink += growing(15000, 40)
		kept[i&63] = make([]byte, 4096)
	}
}

//go:noinline
func worker(until time.Time, done *sync.WaitGroup) {
	rounds(until, &step{bareMid})
	done.Done()
}

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[len(os.Args)-1], 64)
	until := time.Now().Add(time.Duration(seconds * 1e9))
	var done sync.WaitGroup
	done.Add(1)
	runtime.GOMAXPROCS(2)
	go worker(until, &done)
	done.Wait()
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	fmt.Printf("{\"pid\": %d, \"cpu_ns\": %d}\n", os.Getpid(), used.Utime.Nano()+used.Stime.Nano())
}
