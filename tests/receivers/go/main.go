// SPDX-License-Identifier: Apache-2.0

// An independent receiver of OTLP profiles, made of the collector's own receiver and data model: it listens for
// HTTP and gRPC, decodes what arrives by pprofile, checks every index and writes a summary as JSON:
//
//	receiver -http 127.0.0.1:4318 -grpc 127.0.0.1:4317 -out FILE
//
// With -cert and -key both ports speak TLS; with -client-ca they ask for a certificate of that authority.
//
// The file is replaced after each request and holds what arrived since the start. One line "ready" on standard
// output says that both ports are open.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const maxProblems = 100

// Summary is what the tests read.
type Summary struct {
	Requests   int                         `json:"requests"`
	Profiles   int                         `json:"profiles"`
	Samples    int                         `json:"samples"`
	ProfileIDs []string                    `json:"profile_ids"`
	Services   map[string]map[string]int64 `json:"services"` // service, type: sum
	Leaves     map[string]map[string]int64 `json:"leaves"`   // service, function of the leaf: sum
	Problems   []string                    `json:"problems"`
	MoreFaults int                         `json:"more_problems"`
}

type sink struct {
	mutex   sync.Mutex
	summary Summary
	out     string
	refuse  error // what every request is answered with, if not nil
}

func (s *sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (s *sink) problem(format string, args ...any) {
	if len(s.summary.Problems) < maxProblems {
		s.summary.Problems = append(s.summary.Problems, fmt.Sprintf(format, args...))
	} else {
		s.summary.MoreFaults++
	}
}

// text looks a string up, or says that there is none.
func (s *sink) text(d pprofile.ProfilesDictionary, index int32, what string) string {
	if index < 0 || int(index) >= d.StringTable().Len() {
		s.problem("%s: string %d of %d", what, index, d.StringTable().Len())
		return ""
	}
	return d.StringTable().At(int(index))
}

func (s *sink) inRange(index int32, length int, what string) bool {
	if index >= 0 && int(index) < length {
		return true
	}
	s.problem("%s: index %d of %d", what, index, length)
	return false
}

// checkDictionary walks every index of the shared tables.
func (s *sink) checkDictionary(d pprofile.ProfilesDictionary) {
	for what, n := range map[string]int{"mapping": d.MappingTable().Len(), "location": d.LocationTable().Len(),
		"function": d.FunctionTable().Len(), "link": d.LinkTable().Len(), "string": d.StringTable().Len(),
		"attribute": d.AttributeTable().Len(), "stack": d.StackTable().Len()} {
		if n == 0 {
			s.problem("%s table has no entry at 0", what)
		}
	}
	if d.StringTable().Len() > 0 && d.StringTable().At(0) != "" {
		s.problem("string 0 is %q", d.StringTable().At(0))
	}
	for _, f := range d.FunctionTable().All() {
		s.text(d, f.NameStrindex(), "function name")
		s.text(d, f.SystemNameStrindex(), "function system name")
		s.text(d, f.FilenameStrindex(), "function file")
	}
	for _, m := range d.MappingTable().All() {
		s.text(d, m.FilenameStrindex(), "mapping file")
		for _, a := range m.AttributeIndices().All() {
			s.inRange(a, d.AttributeTable().Len(), "mapping attribute")
		}
	}
	for i, l := range d.LocationTable().All() {
		s.inRange(l.MappingIndex(), d.MappingTable().Len(), "location mapping")
		if i > 0 && l.Lines().Len() == 0 {
			s.problem("location %d has no line", i)
		}
		for _, line := range l.Lines().All() {
			s.inRange(line.FunctionIndex(), d.FunctionTable().Len(), "line function")
		}
		for _, a := range l.AttributeIndices().All() {
			s.inRange(a, d.AttributeTable().Len(), "location attribute")
		}
	}
	for _, stack := range d.StackTable().All() {
		for _, l := range stack.LocationIndices().All() {
			s.inRange(l, d.LocationTable().Len(), "stack location")
		}
	}
	for _, a := range d.AttributeTable().All() {
		s.text(d, a.KeyStrindex(), "attribute key")
		s.text(d, a.UnitStrindex(), "attribute unit")
	}
}

// leaf is the name of the innermost function of a stack.
func (s *sink) leaf(d pprofile.ProfilesDictionary, stack int32) string {
	if !s.inRange(stack, d.StackTable().Len(), "sample stack") {
		return ""
	}
	locations := d.StackTable().At(int(stack)).LocationIndices()
	if locations.Len() == 0 || !s.inRange(locations.At(0), d.LocationTable().Len(), "leaf") {
		return ""
	}
	lines := d.LocationTable().At(int(locations.At(0))).Lines()
	if lines.Len() == 0 || !s.inRange(lines.At(0).FunctionIndex(), d.FunctionTable().Len(), "leaf line") {
		return ""
	}
	return s.text(d, d.FunctionTable().At(int(lines.At(0).FunctionIndex())).NameStrindex(), "leaf name")
}

func (s *sink) addProfile(d pprofile.ProfilesDictionary, service string, p pprofile.Profile) {
	kind := s.text(d, p.SampleType().TypeStrindex(), "sample type") + "/" +
		s.text(d, p.SampleType().UnitStrindex(), "sample unit")
	id := p.ProfileID()

	s.text(d, p.PeriodType().TypeStrindex(), "period type")
	s.text(d, p.PeriodType().UnitStrindex(), "period unit")
	s.summary.Profiles++
	s.summary.ProfileIDs = append(s.summary.ProfileIDs, hex.EncodeToString(id[:]))
	if s.summary.Services[service] == nil {
		s.summary.Services[service] = map[string]int64{}
		s.summary.Leaves[service] = map[string]int64{}
	}
	for _, sample := range p.Samples().All() {
		var value int64
		for _, v := range sample.Values().All() {
			value += v
		}
		if sample.Values().Len() == 0 {
			value = int64(sample.TimestampsUnixNano().Len())
		}
		s.summary.Samples++
		s.summary.Services[service][kind] += value
		s.summary.Leaves[service][s.leaf(d, sample.StackIndex())] += value
		s.inRange(sample.LinkIndex(), d.LinkTable().Len(), "sample link")
		for _, a := range sample.AttributeIndices().All() {
			s.inRange(a, d.AttributeTable().Len(), "sample attribute")
		}
	}
}

func (s *sink) ConsumeProfiles(_ context.Context, profiles pprofile.Profiles) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	d := profiles.Dictionary()
	s.summary.Requests++
	if s.refuse != nil {
		if err := s.write(); err != nil {
			return err
		}
		return s.refuse
	}
	s.checkDictionary(d)
	for _, resource := range profiles.ResourceProfiles().All() {
		service := ""
		if name, found := resource.Resource().Attributes().Get("service.name"); found {
			service = name.AsString()
		} else {
			s.problem("a resource without service.name")
		}
		for _, scope := range resource.ScopeProfiles().All() {
			if scope.Scope().Name() == "" {
				s.problem("a scope without a name")
			}
			for _, p := range scope.Profiles().All() {
				s.addProfile(d, service, p)
			}
		}
	}
	return s.write()
}

func (s *sink) write() error {
	text, err := json.MarshalIndent(&s.summary, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.out+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(s.out+".new", s.out)
}

// refusal is the gRPC status that "NUMBER" or "NUMBER:SECONDS" stands for, the latter with RetryInfo.
func refusal(text string) (error, error) {
	if text == "" {
		return nil, nil
	}
	number, delay, asked := strings.Cut(text, ":")
	code, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return nil, err
	}
	s := status.New(codes.Code(code), "refused by the test, 100% \u00fcber")
	if asked {
		seconds, err := strconv.ParseInt(delay, 10, 64)
		if err != nil {
			return nil, err
		}
		if s, err = s.WithDetails(&errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: seconds}}); err != nil {
			return nil, err
		}
	}
	return s.Err(), nil
}

type options struct {
	httpAddress, grpcAddress, out string
	cert, key, clientCA           string // "": without
	grpcMaxMiB                    int    // 0: its default
}

func run(o options, refuse error) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	overHTTP, overGRPC := config.HTTP.GetOrInsertDefault(), config.GRPC.GetOrInsertDefault()
	overHTTP.ServerConfig.NetAddr.Endpoint = o.httpAddress
	overGRPC.NetAddr.Endpoint = o.grpcAddress
	overGRPC.MaxRecvMsgSizeMiB = o.grpcMaxMiB
	if o.cert != "" {
		forHTTP, forGRPC := overHTTP.ServerConfig.TLS.GetOrInsertDefault(), overGRPC.TLS.GetOrInsertDefault()
		forHTTP.CertFile, forHTTP.KeyFile, forHTTP.ClientCAFile = o.cert, o.key, o.clientCA
		forGRPC.CertFile, forGRPC.KeyFile, forGRPC.ClientCAFile = o.cert, o.key, o.clientCA
	}
	s := &sink{out: o.out, refuse: refuse, summary: Summary{Services: map[string]map[string]int64{},
		Leaves: map[string]map[string]int64{}, Problems: []string{}, ProfileIDs: []string{}}}

	settings := receiver.Settings{ID: component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(), BuildInfo: component.NewDefaultBuildInfo()}
	r, err := factory.(xreceiver.Factory).CreateProfiles(ctx, settings, config, xconsumer.Profiles(s))
	if err != nil {
		return err
	}
	if err := r.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return r.Shutdown(context.Background())
}

func main() {
	var o options
	flag.StringVar(&o.httpAddress, "http", "127.0.0.1:4318", "address for OTLP over HTTP")
	flag.StringVar(&o.grpcAddress, "grpc", "127.0.0.1:4317", "address for OTLP over gRPC")
	flag.StringVar(&o.out, "out", "received.json", "file for the summary")
	flag.StringVar(&o.cert, "cert", "", "certificate (PEM), for TLS")
	flag.StringVar(&o.key, "key", "", "its key")
	flag.StringVar(&o.clientCA, "client-ca", "", "authority of the clients' certificates, which are asked for then")
	flag.IntVar(&o.grpcMaxMiB, "grpc-max-mib", 0, "the biggest message over gRPC; 0: the default")
	refuse := flag.String("refuse", "", "gRPC status to answer with: NUMBER or NUMBER:SECONDS to retry after")
	flag.Parse()
	answer, err := refusal(*refuse)
	if err == nil {
		err = run(o, answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}
