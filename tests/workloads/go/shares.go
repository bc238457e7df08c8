// SPDX-License-Identifier: Apache-2.0

// Truth: 60 % main.heavy < main.(*engine).drive < main.runRound < main.main; 30 % main.(*square).area <
// main.runRound < main.main; 10 % main.generic[...] < main.runRound < main.main.
// The same unit of work as c/work.h. Each leaf has a frame of its own (the array), since Go gives a function
// without one no frame pointer.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

var sink uint64

type engine struct{ salt uint64 }

//go:noinline
func touch(frame *[4]uint64) { sink += frame[1] }

//go:noinline
func heavy(units uint64) {
	var frame [4]uint64
	x := units ^ 0x1234567
	for i := uint64(0); i < units*32; i++ {
		x = (x ^ x>>29) * 6364136223846793005
	}
	frame[1] = x
	touch(&frame)
}

//go:noinline
func (e *engine) drive(units uint64) {
	heavy(units)
	sink += e.salt
}

type shape interface{ area(units uint64) }

type square struct{ salt uint64 }

//go:noinline
func (s *square) area(units uint64) {
	var frame [4]uint64
	x := units ^ s.salt
	for i := uint64(0); i < units*32; i++ {
		x = (x ^ x>>29) * 6364136223846793005
	}
	frame[1] = x
	touch(&frame)
}

//go:noinline
func generic[T uint64 | uint32](units T) {
	var frame [4]uint64
	x := uint64(units) ^ 0x3456713
	for i := uint64(0); i < uint64(units)*32; i++ {
		x = (x ^ x>>29) * 6364136223846793005
	}
	frame[1] = x
	touch(&frame)
}

//go:noinline
func runRound(e *engine, s shape, unit uint64) {
	e.drive(unit * 60)
	s.area(unit * 30)
	generic[uint64](unit * 10)
	sink++
}

func main() {
	seconds := 0.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	debug.SetGCPercent(-1)
	start := time.Now()
	random := uint64(start.UnixNano()) | 1
	rounds := uint64(0)
	e := &engine{salt: 1}
	for seconds <= 0 || time.Since(start).Seconds() < seconds {
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		runRound(e, &square{1}, 125+random%250)
		rounds++
	}
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	fmt.Printf("{\"pid\": %d, \"rounds\": %d, \"cpu_ns\": %d}\n", os.Getpid(), rounds,
		used.Utime.Nano()+used.Stime.Nano())
}
