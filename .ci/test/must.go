package main

import "strings"

// tests are names by package, with white space between them.
type tests map[string]string

// mustAll have to pass in the step "all".
var mustAll = tests{
	"cmd/outwash": `
		TestAdoptDeletesNothing TestCycle TestDoctorAtAWS TestDoctorInterrupted TestDoctorUnderPolicies
		TestLargeUpload TestOperations TestRefusals TestReplicateEnd TestReplicateKilled TestReplicateService
		TestReplicateSignals TestS3 TestS3/replicate TestS3Doc TestScript TestScript/prune TestScript/replicate
		TestScript/replicate_config TestScript/replicate_exec TestScript/replicate_refused
		TestScript/restore_continue TestScript/snapshot TestScript/status TestScript/verify TestSecrets TestServiceDoc TestServiceUnit TestStatusVerdicts`,
	"internal/capture":   "TestCopyUnseenWrite TestDurableJournal TestDurableLog",
	"internal/crashdisk": "TestPowerLoss",
	"internal/doctor":    "TestConnections TestDenied TestHealthy",
	"internal/drvtest":   "TestModFiles TestMptest TestWALStress",
	"internal/killtest": `
		TestKill TestKillSidecar TestPausedWriter TestStalledWriter TestTwoInOneProcess TestTwoProcesses`,
	"internal/model":    "TestPlantedBugs TestProtocol",
	"internal/objstore": "TestFileConforms TestMemConforms",
	"internal/rclone":   "TestConforms TestDeviations",
	"internal/s3proxy":  "TestClock TestTLS",
	"internal/segment":  "TestBlockAllocations TestGolden",
	"internal/service": `
		TestAlertRules TestDashboard TestHeartbeat TestHeartbeatSecret TestJudge TestMetricsDoc TestReady`,
	"internal/shell": "TestSplit",
	"internal/sidecar": `
		TestDirOfPrograms TestDurableBeforeUpload TestGuardHasTeeth TestIdleMany TestLoad TestLoadUnguarded
		TestOthersBugs TestPeers1200Commits TestPeersIdle TestPeersTruncate TestPeersTwoHosts TestProgram
		TestRestoredThenChanged TestRestoreBesideSpool TestStockRandom TestTakeOver`,
	"internal/status":      "TestHostileReports TestLiveSocketIsKept TestStaleSocket",
	"internal/stocksqlite": "TestProcess TestWorker",
	"internal/versitygw":   "TestUsers",
	"replicate": `
		TestCrashAtEveryFailpoint TestExportCrash TestExports TestFigures TestObjectsRetiredMeanwhile
		TestRestoreWhileRetaining TestRestoreWithWhatIsLeft TestRetain TestRetainKeepsPromises TestSecuredBeforeUpload
		TestTwoRestoredGoOn TestTwoWritersOneEmptyPath TestVerifyEachObjectDeleted TestVerifyEachRegionFlipped TestVerifyLife
		TestVerifySpliced TestVerifyWhileWritten TestWriteSnapshot`,
	"replicate/config":  "Example TestDirectories TestErrors TestGuide TestSecretsStaySecret",
	"replicate/metrics": "TestCollector TestLatenciesOnlyGrow",
	"s3store": `
		TestAddress TestConforms TestConformsWithChecksums TestCredentialSources TestDisturbance
		TestNotFoundBySomebodyElse TestProvidersRequests TestProxy TestSecretsInURLs TestSettingsOnRequests
		TestStringRoundTrip TestSweepRealServer TestWebPageIsNoAnswer`,
	"vfs": `
		Example TestBacklogLimits TestConfigurationReachesDatabases TestCopy TestCopyDamaged TestCopyHoldsNobody
		TestCrashAfterGate TestDiskFullDatabase TestDiskFullSpool TestFirstContact TestForeignRandom
		TestGatesHaveTeeth TestHistoryOfSQL TestHoleFailedCommitOtherProcess TestLockPage TestModes TestMonth
		TestOthersBugs TestOutageAtStart TestP1SpilledCommit TestP8ForeignWriter TestPeek TestPeers1200Commits
		TestPeersTwoHosts TestRandom TestRandomModes TestRepairBytes TestRepairForeign TestSchedules
		TestSchedulesHaveTeeth TestSettings TestStackRandom TestStackRefusals TestStatusSocket TestTableContinue
		TestTableDiverged TestTableEarlierPosition TestTableMissing TestTableMissingButSpooled TestTablePinned
		TestTableRepair TestTableStaleCopy TestTableTorn TestTableUnreachable TestUploadedSurvivesPowerLoss
		TestUploadedSurvivesPowerLossHasTeeth`,
}

// mustDriver35 have to pass with driver v0.35.
var mustDriver35 = tests{
	"cmd/outwash":       "TestS3 TestScript",
	"internal/killtest": "TestKill",
	"vfs":               "TestGatesHaveTeeth TestRandom",
}

// notDriver35 are left out with driver v0.35: they are about the way to a server, a
// clock's month, a gibibyte, a lock's timeout, or another program's SQLite, and know no
// driver.
const notDriver35 = `
	TestCopyExclusive TestCycle TestHistoryOfSQL TestKillSidecar TestLargeUpload TestLockPage TestMonth
	TestPeers1200Commits TestProgram TestPython TestRefusals TestReplicateKilled`

// mustRace have to pass under the race detector.
var mustRace = tests{
	"internal/objstore": "TestMemConforms",
	"replicate":         "TestExports TestRestoreWhileRetaining TestTwoWritersOneEmptyPath TestVerifyWhileWritten",
	"s3store":           "TestConforms",
	"vfs":               "TestFirstContact TestRandom",
}

// notRace are left out under the race detector: it allocates, which the first counts;
// the others are long and have one goroutine of their own, or are about texts and
// requests: other steps run them.
const notRace = `
	TestBlockAllocations TestCopy(CannotKeepUp|Damaged|Exclusive|Lost|AfterStart) TestCredentialsUnavailable
	TestDryRunSays.* TestErrorTexts TestExportCrash TestForeignRandom TestGatesHaveTeeth TestHistoryOfSQL
	TestHole.* TestLockPage TestModes TestMonth TestOthersBugs TestP[0-9].* TestPageHashesFromIndexes TestPageSizeChanges
	TestPeers.* TestProvidersRequests TestProxy TestRandomLife TestRandomModes TestRandomPowerLoss TestRepair.*
	TestReplicateAndRestoreEveryTXID TestRequestsOfTime TestRetainClockJumps TestRetainKeepsPromises
	TestSchedulesHaveTeeth TestSettings TestSettingsOnRequests TestStack(FirstContact|Modes|Random) TestStringRoundTrip
	TestTable.* TestTrack TestVerify(Each.*|Life|RandomLines|Spliced|Whole)`

// skip is the argument of go test that leaves out names.
func skip(names string) string {
	return "-skip=^(" + strings.Join(strings.Fields(names), "|") + ")$"
}
