// SPDX-License-Identifier: Apache-2.0

// Go calls C, and C calls Go back: each language's frames on a stack of its own.
package main

/*
#include <stdint.h>
#define STEP __attribute__((noipa, noinline, used))
static volatile uint64_t c_sink;
extern uint64_t goBack(uint64_t units);

STEP static uint64_t c_leaf(uint64_t units)
{
	uint64_t x = units ^ 0x1234567;
	for (uint64_t i = 0; i < units; i++)
		x = (x ^ (x >> 29)) * 6364136223846793005u;
	c_sink = x;
	return x;
}

STEP static uint64_t c_mid(uint64_t units)
{
	return c_leaf(units) + c_sink;
}

STEP static uint64_t c_back(uint64_t units)
{
	return goBack(units) + c_sink;
}

static uint64_t c_work(uint64_t units) { return c_mid(units) + 1; }
static uint64_t c_call(uint64_t units) { return c_back(units) + 1; }
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

var sink uint64

//go:noinline
func backLeaf(units uint64) uint64 {
	x := units ^ 0x2345671
	for i := uint64(0); i < units; i++ {
		x = (x ^ x>>29) * 6364136223846793005
	}
	return x
}

//export goBack
//go:noinline
func goBack(units C.uint64_t) C.uint64_t { return C.uint64_t(backLeaf(uint64(units)) + 1) }

//go:noinline
func callC() { sink += uint64(C.c_work(15000)) }

//go:noinline
func callBack() { sink += uint64(C.c_call(15000)) }

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[len(os.Args)-1], 64)
	until := time.Now().Add(time.Duration(seconds * 1e9))
	for time.Now().Before(until) {
		callC()
		callBack()
	}
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	fmt.Printf("{\"pid\": %d, \"cpu_ns\": %d}\n", os.Getpid(), used.Utime.Nano()+used.Stime.Nano())
}
